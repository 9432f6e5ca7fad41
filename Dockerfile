# Socrates in a box: docker build -t socratic-chat-bot . && docker run --rm -p 8080:8080 socratic-chat-bot
# MODEL is a name from server/model/catalog.py: smollm2 (Apache-2.0), tinyllama (Apache-2.0) or
# llama-2-7b-chat (Llama 2 Community License).
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# ctransformers has no wheel for Arm and is compiled there.
RUN if [ "$(uname -m)" = aarch64 ]; then \
        apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /socrates
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml README.md LICENSE ./
COPY server/__init__.py server/__init__.py
RUN if [ "$(uname -m)" = aarch64 ]; then source="--no-binary ctransformers"; fi; \
    pip install --no-cache-dir $source --editable .
COPY server server
ARG MODEL=llama-2-7b-chat
RUN python -m server.model.fetch "$MODEL" && pip uninstall --yes pip setuptools

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --no-create-home socrates
COPY --from=build /opt/venv /opt/venv
COPY --from=build /socrates /socrates
COPY client /socrates/client
WORKDIR /socrates
ARG MODEL=llama-2-7b-chat
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 SOCRATES_HOST=0.0.0.0 SOCRATES_MODEL=$MODEL
USER socrates
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz')"]
ENTRYPOINT ["python", "-m", "server"]
