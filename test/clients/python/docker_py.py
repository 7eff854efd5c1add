"""docker-py against the engine at $DOCKER_HOST: the calls that programs in Python make of it."""

import io
import os
import socket
import tarfile
import threading
import time
import unittest

import docker
from docker.errors import APIError, BuildError, ContainerError, ImageLoadError, ImageNotFound, NotFound
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

IMAGE = "busybox:1"
LABEL = {"wherry.test": "docker-py"}
MINE = {"label": "wherry.test=docker-py"}


def archive(**files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


class Case(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env()
        self.addCleanup(self.client.close)
        self.addCleanup(self.clean)

    def clean(self):
        for c in self.client.containers.list(all=True, filters=MINE):
            c.remove(force=True, v=True)
        for n in self.client.networks.list(filters=MINE):
            n.remove()
        for v in self.client.volumes.list(filters=MINE):
            v.remove()

    def sleeper(self, **options):
        return self.client.containers.run(IMAGE, ["sleep", "300"], detach=True, labels=LABEL, **options)


class Containers(Case):
    def test_run(self):
        self.assertEqual(self.client.containers.run(IMAGE, "echo hi", remove=True), b"hi\n")
        with self.assertRaises(ContainerError) as failed:
            self.client.containers.run(IMAGE, ["sh", "-c", "echo no >&2; exit 3"], remove=True, stderr=True)
        self.assertEqual((failed.exception.exit_status, failed.exception.stderr), (3, b"no\n"))
        with self.assertRaises(ImageNotFound):
            self.client.api.create_container("no-such-image:1")

    def test_life(self):
        c = self.client.containers.create(IMAGE, ["sleep", "300"], name="docker-py-life", labels=LABEL, environment={"A": "b"})
        self.assertEqual(c.status, "created")
        c.start()
        c.reload()
        self.assertEqual(c.status, "running")
        self.assertEqual([x.id for x in self.client.containers.list(filters=MINE)], [c.id])
        c.pause()
        c.reload()
        self.assertEqual(c.status, "paused")
        c.unpause()
        c.rename("docker-py-renamed")
        self.assertEqual(self.client.containers.get("docker-py-renamed").id, c.id)
        c.update(mem_limit="64m", memswap_limit="64m", cpu_shares=512)
        c.restart(timeout=0)
        for _ in range(100):  # a program that has just begun has no arguments to be seen for a moment
            if "[sleep]" not in str(c.top()["Processes"]):
                break
            time.sleep(0.05)
        self.assertIn("sleep 300", str(c.top()["Processes"]))
        c.stop(timeout=0)
        self.assertEqual(c.wait()["StatusCode"], 137)
        c.remove()
        with self.assertRaises(NotFound):
            c.reload()

    def test_options(self):
        c = self.sleeper(
            mem_limit="64m", nano_cpus=500_000_000, pids_limit=50, read_only=True, tmpfs={"/scratch": "size=1m"}, hostname="harbour", user="7:8",
            working_dir="/tmp", cap_drop=["ALL"], ulimits=[Ulimit(name="nofile", soft=99, hard=99)], extra_hosts={"lighthouse": "10.9.8.7"},
            dns=["10.9.8.6"], init=True, shm_size="8m", log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000},
            sysctls={"net.ipv4.ip_local_port_range": "2000 3000"}, security_opt=["no-new-privileges"])
        host = c.attrs["HostConfig"]
        self.assertEqual((host["Memory"], host["NanoCpus"], host["PidsLimit"]), (64 << 20, 500_000_000, 50))
        code, out = c.exec_run(["sh", "-c", "id -u; id -g; hostname; pwd; ulimit -n; cat /proc/sys/net/ipv4/ip_local_port_range; grep lighthouse /etc/hosts; exec 2>&1; touch /x"])
        text = out.decode().split("\n")
        self.assertEqual(text[:5], ["7", "8", "harbour", "/tmp", "99"])
        self.assertIn("2000\t3000", text[5])
        self.assertIn("10.9.8.7", text[6])
        self.assertIn("Read-only file system", text[7])
        self.assertEqual(code, 1)

    def test_exec(self):
        c = self.sleeper()
        self.assertEqual(c.exec_run("echo hi"), (0, b"hi\n"))
        self.assertEqual(c.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True), (4, (b"out\n", b"err\n")))
        self.assertEqual(b"".join(c.exec_run(["seq", "3"], stream=True).output), b"1\n2\n3\n")
        code, sock = c.exec_run(["cat"], stdin=True, socket=True)
        sock._sock.sendall(b"through the socket")
        sock._sock.shutdown(socket.SHUT_WR)
        self.assertEqual(sock.read()[8:], b"through the socket")
        e = self.client.api.exec_create(c.id, ["stty", "-a"], tty=True)["Id"]
        self.client.api.exec_start(e, tty=True)
        self.assertFalse(self.client.api.exec_inspect(e)["Running"])
        e = self.client.api.exec_create(c.id, ["sh", "-c", "test -t 1 && echo terminal"], tty=True)["Id"]
        self.assertEqual(self.client.api.exec_start(e, demux=True), (b"terminal\r\n", None))  # frames, as who starts it wants

    def test_attach_and_logs(self):
        c = self.client.containers.create(IMAGE, ["sh", "-c", "read x; echo got $x; echo no $x >&2"], stdin_open=True, labels=LABEL)
        sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        c.start()
        sock._sock.sendall(b"boat\n")
        c.wait()
        self.assertEqual(c.logs(stderr=False), b"got boat\n")
        self.assertEqual(c.logs(stdout=False), b"no boat\n")
        self.assertEqual(b"".join(c.logs(stream=True, follow=True, stderr=False)), b"got boat\n")
        self.assertRegex(c.logs(timestamps=True, stderr=False), rb"^\d{4}-.*Z got boat\n$")
        lines = self.client.containers.run(IMAGE, ["printf", "one\\ntwo\\nhalf"], stream=True, labels=LABEL)
        self.assertEqual(list(lines), [b"one\n", b"two\n", b"half"])
        self.assertEqual(c.attach(logs=True, stdout=True, stderr=False, stream=False), b"got boat\n")
        sock.close()

    def test_archives(self):
        c = self.sleeper()
        self.assertTrue(c.put_archive("/tmp", archive(a="in by tar")))
        chunks, stat = c.get_archive("/tmp/a")
        self.assertEqual((stat["name"], stat["size"]), ("a", 9))
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            self.assertEqual(tar.extractfile("a").read(), b"in by tar")
        self.assertIn({"Path": "/tmp/a", "Kind": 1}, c.diff())
        self.assertGreater(sum(len(x) for x in c.export()), 1 << 20)
        with self.assertRaises(NotFound):
            c.get_archive("/nothing")

    def test_stats_and_events(self):
        events = self.client.events(decode=True, filters={"type": "container", **MINE})
        seen, enough = [], threading.Event()

        def watch():
            for event in events:
                seen.append(event["Action"])
                if event["Action"] == "destroy":
                    enough.set()
                    return
        watcher = threading.Thread(target=watch)
        watcher.start()
        c = self.sleeper()
        one = c.stats(stream=False)
        self.assertGreater(one["memory_stats"]["usage"], 0)
        stream = c.stats(decode=True)
        self.assertIn("cpu_stats", next(stream))
        stream.close()
        c.remove(force=True)
        self.assertTrue(enough.wait(30), seen)
        watcher.join()
        events.close()
        self.assertEqual([a for a in seen if a in ("create", "start", "die", "destroy")], ["create", "start", "die", "destroy"])

    def test_prune_and_commit(self):
        c = self.client.containers.create(IMAGE, "true", labels=LABEL)
        image = c.commit("docker-py", "committed", changes="LABEL made=so")
        self.assertEqual(image.labels["made"], "so")
        self.assertIn(c.id, self.client.containers.prune(filters=MINE)["ContainersDeleted"])
        self.client.images.remove("docker-py:committed")


class Images(Case):
    def test_build(self):
        context = archive(Dockerfile=f"FROM {IMAGE}\nARG WHO\nCOPY f /f\nRUN echo $WHO >>/f\nCMD cat /f\n", f="copied\n")
        image, log = self.client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag="docker-py:built", buildargs={"WHO": "me"}, rm=True, labels=LABEL)
        self.assertIn("docker-py:built", image.tags)
        self.assertTrue(any("Successfully built" in x.get("stream", "") for x in log))
        self.assertEqual(self.client.containers.run(image, remove=True), b"copied\nme\n")
        self.client.images.remove(image.id, force=True)
        with self.assertRaises(BuildError) as failed:
            self.client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\nRUN exit 9\n".encode()))
        self.assertIn("9", failed.exception.msg)

    def test_registry(self):
        repository = os.environ["REGISTRY"] + "/docker-py/busybox"
        image = self.client.images.get(IMAGE)
        self.assertTrue(image.tag(repository, "x"))
        lines = list(self.client.images.push(repository, "x", stream=True, decode=True, auth_config={"username": "u", "password": "p"}))
        self.assertFalse([x for x in lines if "error" in x], lines)
        about = self.client.images.get_registry_data(f"{repository}:x")
        self.assertTrue(about.has_platform("linux/amd64"))
        self.client.images.remove(f"{repository}:x")
        pulled = self.client.images.pull(repository, "x")
        self.assertEqual(pulled.tags.count(f"{repository}:x"), 1)
        self.assertTrue(pulled.history())
        saved = b"".join(pulled.save(named=True))
        self.client.images.remove(f"{repository}:x")
        self.assertEqual(self.client.images.load(saved)[0].id, pulled.id)
        self.assertTrue(self.client.images.list(filters={"reference": f"{repository}:x"}))
        self.client.images.remove(f"{repository}:x")
        with self.assertRaises((NotFound, APIError)):
            self.client.images.pull(repository, "missing")
        with self.assertRaises(ImageNotFound):
            self.client.containers.run(f"{repository}:missing")
        with self.assertRaises(ImageLoadError):
            self.client.images.load(b"no archive")


class Things(Case):
    def test_networks(self):
        net = self.client.networks.create("docker-py-net", driver="bridge", labels=LABEL, ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.232.7.0/24", gateway="10.232.7.1")]))
        a, b = self.sleeper(name="docker-py-a"), self.sleeper(name="docker-py-b")
        net.connect(a, aliases=["harbour"], ipv4_address="10.232.7.9")
        net.connect(b)
        net.reload()
        self.assertEqual({c.name for c in net.containers}, {"docker-py-a", "docker-py-b"})
        code, out = b.exec_run("ping -c 1 harbour")
        self.assertEqual((code, b"10.232.7.9" in out), (0, True))
        net.disconnect(a)
        with self.assertRaises(APIError):
            net.remove()
        self.assertIsNone(net.attrs["IPAM"]["Options"])
        self.assertEqual(self.client.networks.create("docker-py net", labels=LABEL).name, "docker-py net")

    def test_volumes_and_mounts(self):
        v = self.client.volumes.create("docker-py-vol", labels=LABEL)
        self.client.containers.run(IMAGE, ["sh", "-c", "echo kept >/data/x"], volumes={v.name: {"bind": "/data", "mode": "rw"}}, remove=True)
        out = self.client.containers.run(IMAGE, ["cat", "/data/x"], mounts=[Mount("/data", v.name, read_only=True), Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20)], remove=True)
        self.assertEqual(out, b"kept\n")
        self.assertIn(v.id, [x.id for x in self.client.volumes.list(filters=MINE)])

    def test_ports(self):
        c = self.sleeper(ports={"80/tcp": None, "81/udp": ("127.0.0.1", None)})
        c.reload()
        self.assertGreater(int(c.ports["80/tcp"][0]["HostPort"]), 1024)
        self.assertEqual(c.ports["81/udp"][0]["HostIp"], "127.0.0.1")

    def test_system(self):
        self.assertTrue(self.client.ping())
        self.assertEqual(self.client.info()["OSType"], "linux")
        self.assertEqual(self.client.version()["Os"], "linux")
        df = self.client.df()
        self.assertTrue("LayersSize" in df or "ImageUsage" in df, df)  # by the version of the API
        with self.assertRaises(APIError) as refused:
            self.client.swarm.reload()
        self.assertEqual(refused.exception.status_code, 503)


if __name__ == "__main__":
    unittest.main()
