#!/usr/bin/env python3
"""bench.py [-n RUNS] [TEST…]: runs each command on all engines in turn and prints minimum, median and maximum of the wall time.

Started by run.sh, which brings the engines up. Engines take turns (A B C A B C …), so that a drift of the machine hits all alike; quote
medians and ratios. Milliseconds unless said."""
import http.client, json, os, re, resource, socket, statistics, subprocess as sp, sys, tempfile, time, urllib.parse

import builds
import composes
import layers
import usual

P = os.environ["P"]
RUN = P + "/run"
IMAGE = "127.0.0.1:5000/busybox:1"
ENGINES = {
    "wherry": ["wherry", "-H", f"unix://{RUN}/wherry.sock"],
    "docker": ["docker", "-H", f"unix://{RUN}/docker.sock"],
    "podman": ["podman"],
}
# Podman 4.3 asks for more files and processes than a root without CAP_SYS_RESOURCE may have.
OPTIONS = {"podman": ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]}
LOG = open(f"{P}/bench.err", "w+")


PAUSE = 0.3  # seconds


def call(argv, check=True):
    """Runs a command; its wall time in ms and its output."""
    began = time.perf_counter()
    p = sp.run(argv, stdin=sp.DEVNULL, stdout=sp.PIPE, stderr=LOG)
    wall = (time.perf_counter() - began) * 1e3
    if check and p.returncode:
        print(f"!! {' '.join(argv)}: exit code {p.returncode}", file=sys.stderr)
    return wall, p.stdout.decode(errors="replace").strip()


def row(test, engine, walls, unit="ms"):
    print(f"{test:<28} {engine:<11} n={len(walls):<3} {min(walls):9.1f} {statistics.median(walls):9.1f} {max(walls):9.1f} {unit}", flush=True)


def turns(test, engines, n, argv, after=None):
    """Engines take turns. The pause has what one leaves behind (a network namespace goes in the background, under a lock of the whole
    machine's) be gone before the next one begins."""
    walls = {e: [] for e in engines}
    for i in range(n + 1):
        for e in engines:
            time.sleep(PAUSE)
            wall, out = call(argv(e))
            if after:
                after(e, out)
            if i:
                walls[e].append(wall)
    for e in engines:
        row(test, e, walls[e])


def remove(e, *ids):
    return ENGINES[e] + (["rm", "-f", "-t", "0"] if e == "podman" else ["rm", "-f"]) + list(ids)


def t_run(n):
    for e in ENGINES:
        call(ENGINES[e] + ["pull", "-q", IMAGE])
    turns("run --rm true", ENGINES, n, lambda e: ENGINES[e] + ["run", "--rm", *OPTIONS.get(e, []), IMAGE, "true"])
    turns("run --rm --network none true", ENGINES, n, lambda e: ENGINES[e] + ["run", "--rm", "--network", "none", *OPTIONS.get(e, []), IMAGE, "true"])
    starts, ends = {e: [] for e in ENGINES}, {e: [] for e in ENGINES}
    for i in range(n + 1):
        for e in ENGINES:
            wall, out = call(ENGINES[e] + ["run", "-d", *OPTIONS.get(e, []), IMAGE, "sleep", "100000"])
            gone, _ = call(remove(e, out))
            if i:
                starts[e].append(wall)
                ends[e].append(gone)
    for e in ENGINES:
        row("run -d", e, starts[e])
    for e in ENGINES:
        row("rm -f", e, ends[e])


def t_exec(n):
    ids = {e: call(ENGINES[e] + ["run", "-d", *OPTIONS.get(e, []), IMAGE, "sleep", "100000"])[1] for e in ENGINES}
    turns("exec true", ENGINES, n, lambda e: ENGINES[e] + ["exec", ids[e], "true"])
    for e in ENGINES:
        call(remove(e, ids[e]))


def t_many(n, count=100):
    for e in ENGINES:
        began = time.perf_counter()
        ids = [call(ENGINES[e] + ["run", "-d", *OPTIONS.get(e, []), IMAGE, "sleep", "100000"])[1] for _ in range(count)]
        row(f"{count} x run -d", e, [time.perf_counter() - began], "s")
        row(f"ps -q with {count} running", e, [call(ENGINES[e] + ["ps", "-q"])[0] for _ in range(5)])
        if e == "wherry":
            shims = [pss(p) for p in processes("oar")]
            row("shim, PSS", e, [s / 1024 for s in shims], "MB")
            row("engine with 100, PSS", e, [pss(pid("wherryd")) / 1024], "MB")
        row(f"rm -f of {count}", e, [call(remove(e, *ids))[0] / 1e3], "s")


def t_thousand(n, count=1000):
    """What grows with the number of containers; the peers would take a quarter of an hour."""
    e, walls, ids = "wherry", [], []
    for _ in range(count):
        wall, out = call(ENGINES[e] + ["run", "-d", IMAGE, "sleep", "100000"])
        walls.append(wall)
        ids.append(out)
    for name, part in [("first 20", walls[:20]), ("middle 20", walls[count // 2 - 10:count // 2 + 10]), ("last 20", walls[-20:])]:
        row(f"run -d, {name} of {count}", e, part)
    row(f"ps -q with {count} running", e, [call(ENGINES[e] + ["ps", "-q"])[0] for _ in range(5)])
    row(f"ps with {count} running", e, [call(ENGINES[e] + ["ps"])[0] for _ in range(5)])
    row(f"exec true beside {count}", e, [call(ENGINES[e] + ["exec", ids[-1], "true"])[0] for _ in range(10)])
    row(f"engine with {count}, PSS", e, [pss(pid("wherryd")) / 1024], "MB")
    row(f"shim beside {count}, PSS", e, [pss(p) / 1024 for p in processes("oar")], "MB")
    row(f"rm -f of {count}", e, [call(remove(e, *ids))[0] / 1e3], "s")


def t_api(n):
    """Create and start as clients of the API do it, without the time of a command line; and the same without a network."""
    for mode in ["default", "none"]:
        created, started, both = [], [], []
        for i in range(4 * n + 1):
            api = Api(f"{RUN}/wherry.sock")
            began = time.perf_counter()
            made = api.post("/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": mode, "AutoRemove": True}})
            middle = time.perf_counter()
            api.post(f"/containers/{made['Id']}/start")
            ended = time.perf_counter()
            api.call("DELETE", f"/containers/{made['Id']}?force=1")
            time.sleep(0.05)  # in the other tests the peers have their turn
            if i:
                created.append((middle - began) * 1e3)
                started.append((ended - middle) * 1e3)
                both.append((ended - began) * 1e3)
        for name, walls in [("create", created), ("start", started), ("create+start", both)]:
            row(f"API {name}, network {mode}", "wherry", walls)


def t_reads(n, count=1000):
    """What only reads, with a thousand containers there, as a client sees it that does not parse the answer."""
    api = Api(f"{RUN}/wherry.sock")
    ids = [api.post(f"/containers/create?name=reads-{i}", {"Image": IMAGE, "Cmd": ["true"], "Labels": {"n": str(i)}})["Id"] for i in range(count)]
    filters = urllib.parse.quote(json.dumps({"label": ["n=500"]}))
    for path in ["/containers/json?all=1", f"/containers/json?all=1&filters={filters}", "/containers/json", f"/containers/{ids[500]}/json", "/info", "/version", "/images/json",
                 "/networks", "/volumes", "/events?since=1&until=2", "/system/df?type=image"]:
        walls = []
        for i in range(4 * n + 1):
            began = time.perf_counter()
            api.read(path)
            if i:
                walls.append((time.perf_counter() - began) * 1e3)
        row(f"GET {path[:40].split('&filters')[0]}{' (filter)' if 'filters' in path else ''}, {count} there", "wherry", walls)
    for i in ids:
        api.call("DELETE", f"/containers/{i}")


class Api:
    """One connection to an engine."""

    def __init__(self, path):
        self.http = http.client.HTTPConnection("localhost")
        self.http.sock = socket.socket(socket.AF_UNIX)
        self.http.sock.connect(path)

    def read(self, path):
        self.http.request("GET", path)
        answer = self.http.getresponse()
        if answer.status >= 400:
            print(f"!! GET {path}: {answer.status}", file=sys.stderr)
        return answer.read()

    def call(self, method, path, body=None):
        self.http.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body is not None else {})
        answer = self.http.getresponse()
        data = answer.read()
        if answer.status >= 400:
            print(f"!! {method} {path}: {answer.status} {data.decode()}", file=sys.stderr)
        return json.loads(data) if data else None

    def post(self, path, body=None):
        return self.call("POST", path, body)


def t_log(n):
    command = "yes %s | head -c 200000000" % ("x" * 99)
    turns("200 MB of lines", ENGINES, max(2, n // 4), lambda e: ENGINES[e] + ["run", "--rm", "--network", "none", *OPTIONS.get(e, []), IMAGE, "sh", "-c", command])


def t_oci(n):
    with tempfile.TemporaryDirectory(prefix="bundle-", dir=RUN) as bundle:
        os.mkdir(bundle + "/rootfs")
        made = call(ENGINES["wherry"] + ["create", IMAGE])[1]
        sp.run(f"{' '.join(ENGINES['wherry'])} export {made} | tar -x -C {bundle}/rootfs", shell=True, check=True)
        call(remove("wherry", made))
        sp.run(["runc", "spec"], cwd=bundle, check=True)
        with open(bundle + "/config.json") as f:
            config = json.load(f)
        config["process"].update(terminal=False, args=["/bin/true"])
        config["linux"]["cgroupsPath"] = "/wherry-bench/oci"
        config["ociVersion"] = "1.0.2"
        with open(bundle + "/config.json", "w") as f:
            json.dump(config, f)
        os.makedirs(bundle + "/state", exist_ok=True)
        turns("OCI run of a bundle", ["oar", "crun", "runc"], n, lambda e: [e, "run", "-b", bundle, "bench"])


def t_small(n):
    turns("--version", ENGINES, n, lambda e: [ENGINES[e][0], "--version"])
    turns("ps -q, none running", ENGINES, n, lambda e: ENGINES[e] + ["ps", "-q"])


# containerd is dockerd's own, asked by ctr; Wherry with directories is a second engine.
CTR = ["ctr", "--address", "/run/docker-exec/containerd/containerd.sock", "--namespace", "bench", "images"]
PULLERS = ENGINES | {"wherry dirs": ["wherry", "-H", f"unix://{RUN}/wherryd-dirs.sock"], "containerd": CTR}


def pull(e, image):
    return CTR + ["pull", "--plain-http", image] if e == "containerd" else PULLERS[e] + ["pull", "-q", image]


def t_pull(n):
    """Every pull is of a copy that nobody has seen; what was pulled is removed when all pulls have been timed."""
    n = max(3, n // 4)
    made = layers.Layers(os.environ["IMAGES"], P + "/data/layers")
    pulled = []
    for form in layers.PACK:
        name = f"pull {form}, {made.size(form) >> 20} MB"
        row(f"{name}: limit", "(2 cores)", [timed(made.limit, form, P + "/data") for _ in range(n)], "s")
        engines = [e for e in PULLERS if (e, form) != ("docker", "zstd")]  # Debian's Docker, 20.10, reads no zstd
        walls, used = {e: [] for e in engines}, {e: [] for e in engines}
        for i in range(n):
            for e in engines:
                image = made.push("127.0.0.1:5000", f"bench/{form}-{e.replace(' ', '-')}", str(i), form)
                sp.run(["sync"])
                time.sleep(PAUSE)
                before = cpu(e)
                walls[e].append(call(pull(e, image))[0] / 1e3)
                used[e].append(cpu(e) - before)
                pulled.append((e, image))
        for e in engines:
            row(name, e, walls[e], "s")
        for e in engines:
            row(f"{name}: CPU", e, used[e], "s")
    for e in PULLERS:
        gone = CTR + ["rm", "--sync"] if e == "containerd" else PULLERS[e] + ["rmi", "-f"]
        row("rmi of such an image", e, [call(gone + [image])[0] for by, image in pulled if by == e])


def t_build(n):
    """Builds of what is there and of what is not; docker's is BuildKit by way of buildx, buildkitd is BuildKit alone."""
    call(ENGINES["wherry"] + ["tag", "python:1", f"{builds.REGISTRY}/python:1"])
    call(ENGINES["wherry"] + ["push", "-q", f"{builds.REGISTRY}/python:1"])
    for e in ENGINES:
        for image in [IMAGE, f"{builds.REGISTRY}/python:1"]:
            call(ENGINES[e] + ["pull", "-q", image])
    how = builds.commands(ENGINES, RUN, OPTIONS["podman"])
    dirs = builds.contexts(P + "/data/contexts")
    for test, name, more in [
        ("build, nothing changed", "step", []),
        ("build, one RUN", "step", ["--no-cache"]),
        ("bench Dockerfile, cold", "bench", ["--no-cache"]),
        ("bench Dockerfile, warm", "bench", []),
    ]:
        turns(test, how, n, lambda e: how[e](dirs[name], f"{name}:1", *more))
    # The first build of the large context has another time than those that find it unchanged.
    for e in how:
        row("1 GB in 20,000 files, first", e, [call(how[e](dirs["large"], "large:1"))[0] / 1e3], "s")
    turns("1 GB, unchanged", how, max(3, n // 3), lambda e: how[e](dirs["large"], "large:1"))


def t_compose(n):
    """docker's compose, the same program on both engines: up of ten services, up again of what runs, down; time, and the engine's processor time."""
    engines = ["wherry", "docker"]
    for e in engines:
        call(ENGINES[e] + ["pull", "-q", IMAGE])
    for name, file in composes.projects(P + "/data/composes", IMAGE).items():
        steps = {"up -d": ["up", "-d"], "up -d again": ["up", "-d"], "down": ["down", "-t", "0"]}
        walls = {(s, e): [] for s in steps for e in engines}
        used = {(s, e): [] for s in steps for e in engines}
        for i in range(n + 1):
            for e in engines:
                time.sleep(PAUSE)
                for s, arguments in steps.items():
                    before = engine_cpu(e)
                    wall, _ = call(["docker", "-H", ENGINES[e][2], "compose", "-f", file, *arguments])
                    if i:
                        walls[s, e].append(wall)
                        used[s, e].append((engine_cpu(e) - before) * 1e3)
        for s in steps:
            for e in engines:
                row(f"{name}: {s}", e, walls[s, e])
            for e in engines:
                row(f"{name}: {s}, CPU", e, used[s, e])


def shell(e, line, folder):
    """Runs a shell line for an engine; its wall time."""
    env = os.environ | {"E": " ".join(ENGINES[e]), "O": " ".join(OPTIONS.get(e, [])), "N": e, "I": IMAGE, "F": folder}
    began = time.perf_counter()
    p = sp.run(["bash", "-c", line], env=env, stdin=sp.DEVNULL, stdout=sp.PIPE, stderr=LOG)
    wall = (time.perf_counter() - began) * 1e3
    if p.returncode:
        print(f"!! {e}: {line}: exit code {p.returncode}", file=sys.stderr)
    return wall, p.stdout.decode(errors="replace")


def t_usual(n):
    """Everyday commands, files and output."""
    n, files = max(3, n // 4), P + "/data/usual"
    usual.folder(files)
    for e in ENGINES:
        for line in usual.READY:
            shell(e, line, files)
    for name, line, before, after in usual.FILES + usual.OUTPUT + usual.COMMANDS:
        walls = {e: [] for e in ENGINES}
        for _ in range(n):
            for e in ENGINES:
                if before:
                    shell(e, before, files)
                time.sleep(PAUSE)
                walls[e].append(shell(e, line, files)[0])
                if after:
                    shell(e, after, files)
        for e in ENGINES:
            row(name, e, walls[e])
    for e in ENGINES:
        shell(e, usual.DONE, files)


def t_net(n):
    """Throughput of one connection, in Gbit/s."""
    n, files = max(3, n // 4), P + "/data"
    usual.iperf(files + "/iperf.tar")
    for e in ENGINES:
        shell(e, "$E import $F/iperf.tar iperf:1 && $E run -d --name iperf --tmpfs /tmp -p 15201:5201 $O iperf:1 /usr/bin/iperf3 -s", files)
        time.sleep(1)
        address = shell(e, "$E inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' iperf", files)[1].strip()
        for name, line in [("to a published port", "iperf3 -J -t 4 -p 15201 -c 127.0.0.1"), ("container to container", "$E run --rm --tmpfs /tmp $O iperf:1 /usr/bin/iperf3 -J -t 4 -c " + address)]:
            row(f"network, {name}", e, [usual.gigabits(shell(e, line + "; sleep 1", files)[1]) for _ in range(n)], "Gbit/s")
        shell(e, "$E rm -f iperf", files)


def engine_cpu(engine):
    """Seconds of processor time of an engine's processes alone."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu(engine) - children.ru_utime - children.ru_stime


def timed(f, *args):
    began = time.perf_counter()
    f(*args)
    return time.perf_counter() - began


def cpu(engine):
    """Seconds of processor time of an engine's processes, and of the commands that were called."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = children.ru_utime + children.ru_stime
    root = {"wherry": "wherryd", "wherry dirs": "wherryd-dirs", "docker": "dockerd", "containerd": "dockerd"}.get(engine)
    if not root:
        return total
    stats = {}
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            stats[int(p)] = open(f"/proc/{p}/stat").read().rpartition(")")[2].split()
        except OSError:
            pass
    family = [pid(root)]
    for p in family:
        family += [q for q, s in stats.items() if int(s[1]) == p]
    return total + sum(sum(map(int, stats[p][11:15])) for p in family) / os.sysconf("SC_CLK_TCK")


def pid(name):
    return int(open(f"{RUN}/{name}.pid").read())


def processes(name):
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = re.search(r"\nPPid:\t(\d+)", open(f"/proc/{p}/status").read())[1]
            if int(parent) == pid("wherryd") and open(f"/proc/{p}/comm").read().startswith(name):
                yield int(p)
        except OSError:
            pass


def pss(p):
    return int(re.search(r"Pss: +(\d+)", open(f"/proc/{p}/smaps_rollup").read())[1])


def t_idle(n):
    row("engine idle, PSS", "wherry", [pss(pid("wherryd")) / 1024], "MB")
    daemons = [pid("dockerd")] + [int(p) for p in sp.run(["ps", "-o", "pid=", "--ppid", str(pid("dockerd"))], stdout=sp.PIPE).stdout.split()]
    row("engine idle, PSS", "docker", [sum(pss(p) for p in daemons) / 1024], "MB")


def main():
    args, n = sys.argv[1:], 12
    if args[:1] == ["-n"]:
        n, args = int(args[1]), args[2:]
    tests = {k[2:]: v for k, v in globals().items() if k.startswith("t_")}
    unknown = [a for a in args if a not in tests]
    if unknown:
        sys.exit(f"there is no test {unknown[0]!r}: there are {' '.join(tests)}")
    print(f"# {time.strftime('%F %T')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; minimum, median, maximum")
    for name in args or ["idle", "small", "run", "exec", "api", "many", "log", "oci", "pull"]:
        tests[name](n)


main()
