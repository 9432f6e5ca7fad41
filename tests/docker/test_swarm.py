"""compose.yaml on a Docker Swarm of three machines: network namespaces that a bridge joins."""

import http.client
import os
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest

from tests.docker.engine import CACHE, Engine
from tests.docker.web import is_ready
from tests.support.process import ROOT
from tests.support.waiting import PATIENCE_S, wait_until

FILE = ROOT / "server" / "deploy" / "compose.yaml"
BRIDGE = f"sw{os.getpid()}"[:15]
HOST = "10.213.9.254"
PROMPTS = 18
# Swarm notices a machine that is gone after some 15 s, and starts containers within seconds.
SWARM_S = 4 * PATIENCE_S


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Node:
    """One machine of the swarm: a namespace with a cable to the bridge, and an engine in it."""

    def __init__(self, number):
        self.name = f"{BRIDGE}n{number}"
        self.cable = f"{BRIDGE}c{number}"
        self.address = f"10.213.9.{number}"
        self.engine = Engine(CACHE / f"node{number}", namespace=self.name)

    def plug_in(self):
        ip("netns", "add", self.name)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.cable, "master", BRIDGE, "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")

    def servers(self):
        """The running containers of the service, by id."""
        return self.engine("ps", "--quiet", "--filter", "name=socrates_socrates").split()


@contextmanager
def machines(count):
    with ExitStack() as stack:
        ip("link", "add", BRIDGE, "type", "bridge")
        stack.callback(ip, "link", "del", BRIDGE)
        # A Docker engine on the same machine has all that crosses a bridge dropped.
        rule = ["FORWARD", "--in-interface", BRIDGE, "--out-interface", BRIDGE, "--jump", "ACCEPT"]
        subprocess.run(["iptables", "--insert", *rule], check=True)
        stack.callback(subprocess.run, ["iptables", "--delete", *rule], check=False)
        ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number in range(PROMPTS):
            ip("address", "add", f"{person(number)}/24", "dev", BRIDGE)
        nodes = [Node(number) for number in range(1, count + 1)]
        for node in nodes:
            shutil.rmtree(node.engine.directory, ignore_errors=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", node.name], check=False)
            node.plug_in()
            stack.enter_context(node.engine)
        yield nodes


def fill(node, engine, images):
    """Copy images from one engine to another, as a registry would."""
    with (
        engine.popen("save", *images, stdout=subprocess.PIPE) as saving,
        node.engine.popen("load", stdin=saving.stdout, stdout=subprocess.DEVNULL) as loading,
    ):
        assert loading.wait() == 0


@pytest.fixture(scope="module")
def swarm(engine, image):
    """Three machines with the stack deployed; the first is the manager."""
    # An update needs another image: the same one with another label.
    engine("build", "--tag", "socrates:2", "-", input=f"FROM {image}\nLABEL update=2\n")
    with machines(3) as nodes:
        with ThreadPoolExecutor(3) as pool:
            list(
                pool.map(
                    lambda node: fill(node, engine, [image, "socrates:2", "haproxy:2.8"]), nodes
                )
            )
        manager = nodes[0].engine
        manager("swarm", "init", "--advertise-addr", nodes[0].address)
        token = manager("swarm", "join-token", "--quiet", "worker")
        for node in nodes[1:]:
            node.engine("swarm", "join", "--token", token, f"{nodes[0].address}:2377")
        deploy(manager, image)
        yield nodes
        manager("stack", "rm", "socrates")
        wait_until(
            lambda: not any(node.engine("ps", "--quiet") for node in nodes),
            "no more tasks",
            SWARM_S,
        )


def deploy(manager, image):
    subprocess.run(
        ["docker", "stack", "deploy", "--resolve-image", "never", "-c", str(FILE), "socrates"],
        env=manager.environment | {"IMAGE": image, "UPDATE_DELAY": "1s"},
        check=True,
        capture_output=True,
    )


def proxy_of(nodes):
    """The machine that the proxy runs on, and its address."""

    def find():
        for node in nodes:
            if node.engine("ps", "--quiet", "--filter", "name=socrates_proxy"):
                return node
        return None

    node = wait_until(find, "a proxy", SWARM_S)
    return node, (node.address, 8080)


def ask(address, number, max_tokens=16):
    """Send one prompt from an address of its own, as another person would."""
    path = f"/prompt?max_tokens={max_tokens}&seed={number}&ignore_eos=true"
    source = (person(number % PROMPTS), 0)
    connection = http.client.HTTPConnection(*address, timeout=SWARM_S, source_address=source)
    try:
        with closing(connection):
            connection.request("POST", path, f"{number}. Tell me a long story about the sea.")
            response = connection.getresponse()
            return response.status if response.read() else "empty"
    except (http.client.HTTPException, OSError) as error:
        return repr(error)


def person(number):
    return f"10.213.9.{100 + number}"


@contextmanager
def asked(address, prompts=PROMPTS):
    """Send prompts at once; the block is entered when the first is answered. Yields the rest."""
    answers = []
    with ThreadPoolExecutor(PROMPTS) as pool:
        futures = [pool.submit(ask, address, number) for number in range(prompts)]
        wait_until(lambda: any(future.done() for future in futures), "the first answer", SWARM_S)
        yield answers
        answers += [future.result() for future in futures]


def answered(node):
    """How many prompts the servers on a machine have answered, by their logs."""
    logs = [node.engine.run("logs", name).stderr for name in node.servers()]
    return sum(log.count("ended=length") for log in logs)


def wait_until_all_answer(nodes, address):
    """Wait until a server on every machine is there, and the proxy asks it."""
    wait_until(lambda: all(node.servers() for node in nodes), "a server on each", SWARM_S)

    def all_asked():
        before = [answered(node) for node in nodes]
        if is_ready(address):
            with ThreadPoolExecutor(PROMPTS) as pool:
                list(pool.map(lambda number: ask(address, number, 2), range(12)))
        return all(answered(node) > was for node, was in zip(nodes, before, strict=True))

    wait_until(all_asked, "an answer from each", SWARM_S)


def test_one_server_a_machine_and_prompts_are_spread(swarm):
    _, address = proxy_of(swarm)
    wait_until_all_answer(swarm, address)
    assert [len(node.servers()) for node in swarm] == [1, 1, 1]
    before = [answered(node) for node in swarm]
    with asked(address) as answers:
        pass
    assert answers == [200] * PROMPTS
    assert min(answered(node) - was for node, was in zip(swarm, before, strict=True)) >= 2


def test_drained_machine_loses_nothing(swarm):
    with_proxy, address = proxy_of(swarm)
    drained = next(node for node in swarm[1:] if node is not with_proxy)
    wait_until_all_answer(swarm, address)
    manager = swarm[0].engine
    name = drained.engine("info", "--format", "{{.Swarm.NodeID}}")
    with asked(address) as answers:
        manager("node", "update", "--availability", "drain", name)
    wait_until(lambda: not drained.servers(), "an empty machine", SWARM_S)
    manager("node", "update", "--availability", "active", name)
    print("drain:", Counter(answers))
    assert answers == [200] * PROMPTS


def test_update_loses_nothing(swarm):
    _, address = proxy_of(swarm)
    wait_until_all_answer(swarm, address)
    manager = swarm[0].engine
    results = []
    with asked(address) as answers:
        deploy(manager, "socrates:2")
    results += answers
    while not is_updated(swarm):
        with asked(address, 6) as answers:
            pass
        results += answers
    print("update:", Counter(results))
    assert set(results) == {200}


def is_updated(nodes):
    images = [node.engine("ps", "--format", "{{.Image}}") for node in nodes]
    return all("socrates:2" in names.split() for names in images)


def test_machine_that_vanishes_loses_at_most_the_answer_it_spoke(swarm):
    """Its cable is cut: no reset tells the proxy."""
    with_proxy, address = proxy_of(swarm)
    lost = next(node for node in swarm[1:] if node is not with_proxy)
    wait_until_all_answer(swarm, address)
    with asked(address) as answers:
        ip("link", "set", lost.cable, "down")
    print("vanished:", Counter(answers))
    assert answers.count(200) >= PROMPTS - 1
    ip("link", "set", lost.cable, "up")
    wait_until_all_answer(swarm, address)  # it comes back by itself
