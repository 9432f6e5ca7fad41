# Socrates in a box, for amd64 and arm64 (a Raspberry Pi 5):
#
#   docker build -t socratic-chat-bot . && docker run --rm -p 8080:8080 socratic-chat-bot
#
# MODEL       llama-2-7b-chat  2.9 GB, Llama 2 Community License (the default); include a copy
#                              of it if you redistribute the image
#             tinyllama        0.7 GB, Apache-2.0
#             socrates         0.1 GB, Apache-2.0: SmolLM2, trained to be Socrates
#             smollm2          0.1 GB, Apache-2.0
#             none             no model: mount one and set SOCRATES_MODEL to its path
# CPU_TARGET  what gcc compiles the engines for: -mcpu on arm64, -march on amd64. Never
#             "native": an image built on one machine would die on another.
# LLAMA_CPP   1 adds the second engine, for models that ctransformers cannot run; it takes 10 minutes
#             to compile on two cores of a PC, and longer on a Pi
# VERSION     what the page and /status show
ARG PYTHON=3.11
ARG DEBIAN=bookworm

# -- what each stage installs, as pyproject.toml pins it: a change to anything else in that file
#    keeps the cached layers of the other stages valid
FROM python:${PYTHON}-slim-${DEBIAN} AS pins
COPY pyproject.toml /
RUN python -c "import tomllib; project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['llama-cpp'], sep='\n')" >/all.txt \
 && grep '^ctransformers==' /all.txt >/ctransformers.txt \
 && grep '^llama-cpp-python==' /all.txt >/llama-cpp.txt \
 && grep -Ev '^(ctransformers|llama-cpp-python)==' /all.txt >/others.txt \
 && grep -E '^(gguf|huggingface-hub|numpy|tokenizers|tqdm)==' /all.txt >/fetching.txt

# -- the model: only what fetching needs, so that a code change does not download it again
FROM python:${PYTHON}-slim-${DEBIAN} AS model
COPY --from=pins /fetching.txt /
RUN pip install --no-cache-dir --requirement /fetching.txt
WORKDIR /socrates
# Without the packages' own files: server/__init__.py has the version.
COPY server/model/errors server/model/errors
COPY server/model/files server/model/files
COPY server/model/fetch server/model/fetch
ARG MODEL=llama-2-7b-chat
ARG HF_ENDPOINT
RUN mkdir models \
 && if [ "$MODEL" != none ]; then python -m server.model.fetch "$MODEL"; fi

# -- the engines from their sources: ctransformers has no wheel for arm64, and a slower one for
#    amd64; llama-cpp-python has none at all
FROM python:${PYTHON}-slim-${DEBIAN} AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
# Their build requirements, which they do not pin.
RUN pip install --no-cache-dir cmake==3.31.6 ninja==1.13.0 scikit-build==0.18.1 scikit-build-core==1.1.2 setuptools==80.9.0 wheel==0.45.1
COPY --from=pins /ctransformers.txt /llama-cpp.txt /
ARG CPU_TARGET
ARG LLAMA_CPP
# With CT_INSTRUCTIONS=basic and a processor name without "arm" or "aarch64", ctransformers'
# CMakeLists.txt adds no flags of its own (on arm it would append -mcpu=native to ours); with these
# options llama.cpp's adds none either. The build fails if there are no dot product instructions in
# a library, which would then be half as fast. Older CPUs have none: naming one in CPU_TARGET skips
# this check. libgomp comes along, because the final stage has no compiler.
RUN set -eu; \
    case "$(uname -m)" in \
      aarch64) flag="-mcpu=${CPU_TARGET:-cortex-a76}" proof='sdot' ;; \
      *) flag="-march=${CPU_TARGET:-x86-64-v3}" proof='vpmaddubsw.*%ymm' ;; \
    esac; \
    case "$flag" in *native*) echo "error: CPU_TARGET must not be native" >&2; exit 1 ;; esac; \
    prove() { \
      objdump --disassemble "$1" >/look/code; \
      found=$(grep -c "$proof" /look/code || true); \
      echo "$1, compiled with $flag: $found dot product instructions"; \
      [ "$found" -gt 0 ] || [ -n "${CPU_TARGET:-}" ]; \
    }; \
    build() { pip wheel --no-cache-dir --no-deps --no-build-isolation --no-binary :all: --wheel-dir /wheels --requirement "$1"; }; \
    flags="-DCMAKE_C_FLAGS=$flag -DCMAKE_CXX_FLAGS=$flag"; \
    CT_INSTRUCTIONS=basic CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=generic $flags" build /ctransformers.txt; \
    python -m zipfile -e /wheels/ctransformers-*.whl /look; \
    prove /look/ctransformers/lib/local/libctransformers.so; \
    if [ "${LLAMA_CPP:-}" = 1 ]; then \
      CMAKE_ARGS="-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF -DGGML_SSE42=OFF -DGGML_AVX=OFF -DGGML_AVX2=OFF -DGGML_BMI2=OFF -DGGML_FMA=OFF -DGGML_F16C=OFF $flags" build /llama-cpp.txt; \
      python -m zipfile -e /wheels/llama_cpp_python-*.whl /look; \
      prove /look/llama_cpp/lib/libggml-cpu.so; \
    fi; \
    rm -r /look
# The base image's own pip installs into the environment, and is still there in the final stage,
# where `server.model.fetch smollm2` needs it.
RUN python -m venv --without-pip --system-site-packages /opt/venv
COPY --from=pins /others.txt /
# Removed: tests, symbols (but not numpy's, whose libraries are laid out so that strip breaks them),
# a hub transport that fetch/hub.py does not use, and second copies of llama.cpp's libraries. What
# llama-cpp-python needs beyond its bindings is not installed.
RUN pip --python /opt/venv/bin/python install --no-cache-dir --requirement /others.txt /wheels/ctransformers-*.whl \
 && if [ "${LLAMA_CPP:-}" = 1 ]; then \
      pip --python /opt/venv/bin/python install --no-cache-dir --no-deps /wheels/llama_cpp_python-*.whl \
      && lib="$(echo /opt/venv/lib/python*/site-packages/llama_cpp/lib)" \
      && rm "$lib"/*.so.*.* && cp /usr/lib/*/libgomp.so.1 "$lib"; \
    fi \
 && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
 && pip --python /opt/venv/bin/python uninstall --yes hf-xet \
 && find /opt/venv -name '*.so*' -not -path '*/numpy*' -exec strip --strip-unneeded {} +

# -- the code, with its version
FROM python:${PYTHON}-slim-${DEBIAN} AS code
WORKDIR /socrates
COPY server server
COPY client client
COPY bench bench
COPY LICENSE .
ARG VERSION
RUN if [ -n "$VERSION" ]; then printf '"""Socratic Chat Bot."""\n\n__version__ = "%s"\n' "$VERSION" >server/__init__.py; fi \
 && python -m compileall -q server bench

FROM python:${PYTHON}-slim-${DEBIAN}
RUN useradd --system --uid 999 --no-create-home --home-dir /nonexistent socrates
COPY --from=model --chown=999:999 /socrates/models /socrates/models
COPY --from=build /opt/venv /opt/venv
COPY --from=code /socrates /socrates
WORKDIR /socrates
ARG MODEL=llama-2-7b-chat
ARG VERSION
LABEL org.opencontainers.image.title="Socratic Chat Bot" \
      org.opencontainers.image.description="A small language model that thinks it is Socrates" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      socratic-chat-bot.model="${MODEL}"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    SOCRATES_HOST=0.0.0.0 \
    SOCRATES_PORT=8080 \
    SOCRATES_MODEL=${MODEL}
USER 999:999
EXPOSE 8080
STOPSIGNAL SIGTERM
# It checks the port in SOCRATES_PORT: change the port with that variable, not with --port.
# A Swarm sends prompts to a container, and goes on with an update, only once it is healthy: after
# the first interval. -I and -S skip imports that a probe does not need: a tenth of a second on a Pi.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["python", "-ISc", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SOCRATES_PORT']), timeout=9); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
# `docker run IMAGE bench` measures, `docker run IMAGE server --help` lists the options.
ENTRYPOINT ["python", "-m"]
CMD ["server"]
