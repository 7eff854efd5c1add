"""What people do besides run: everyday commands, files, output, and the throughput of networks, each as a shell line. Variables: E the engine's command, O its options for run, N
its name, I the image, F a folder for files."""
import json, os, subprocess as sp

BIG = 300_000_000
PYTHON = "docker.io/library/python:1"  # in full: podman calls a short name localhost/python, and the image would stay by its other one

# name, command, and what is done before and after each without being timed
FILES = [
    ("save, 160 MB", f"$E save -o $F/$N.tar {PYTHON}", "rm -f $F/$N.tar", ""),
    ("load, 160 MB", "$E load -q -i $F/$N.tar", f"$E rmi -f {PYTHON}", ""),
    ("cp of 5,000 files, in", "$E cp $F/tree usual:/in", "", "$E exec usual rm -rf /in"),
    ("cp of 5,000 files, out", "$E cp usual:/there $F/out", "", "rm -rf $F/out"),
    ("cp of 300 MB, in", "$E cp $F/big usual:/big", "", ""),
    ("cp of 300 MB, out", "$E cp usual:/big $F/out", "", "rm $F/out"),
    ("diff of 5,000 files", "$E diff usual", "", ""),
    ("commit of 300 MB, 5,000 files", "$E commit usual usual:1", "", "$E rmi -f usual:1"),
]
OUTPUT = [
    ("logs, 100 MB of lines", "$E logs printed >/dev/null", "", ""),
    ("logs --tail 10 of these", "$E logs --tail 10 printed >/dev/null", "", ""),
    ("run, 200 MB to the client", "$E run --rm $O $I head -c 200000000 /dev/zero >/dev/null", "", ""),
    ("exec, 200 MB to the client", "$E exec usual head -c 200000000 /dev/zero >/dev/null", "", ""),
    ("exec -i, 200 MB to a program", "head -c 200000000 /dev/zero | $E exec -i usual wc -c", "", ""),
]
COMMANDS = [
    ("run -p", "$E run --rm $O -p 127.0.0.1:18080:80 $I true", "", ""),
    ("40 x run --rm, four at a time", "seq 40 | xargs -P 4 -I{} $E run --rm $O $I true", "", ""),
    ("kill and start", "$E kill usual && $E start usual", "", ""),
    ("pause and unpause", "$E pause usual && $E unpause usual", "", ""),
    ("network create and rm", "$E network create usual && $E network rm usual", "", ""),
    ("volume create and rm", "$E volume create usual && $E volume rm usual", "", ""),
    ("inspect", "$E inspect usual", "", ""),
    ("images", "$E images", "", ""),
    ("rm of 20 stopped", "$E rm $($E ps -aqf label=usual)", "for i in $(seq 20); do $E create -l usual $O $I true; done", ""),
]
READY = [
    "$E pull -q $I",
    "$E load -q -i $IMAGES/python-1.tar",
    "$E run -d --name usual $O $I sleep 100000",
    "$E cp $F/tree usual:/there",
    "$E run --name printed --network none $O $I sh -c 'yes %s | head -c 100000000' >/dev/null" % ("x" * 71),
]
DONE = "$E rm -f usual printed"


def folder(path):
    """Files to copy."""
    os.makedirs(path + "/tree")
    for i in range(50):
        os.mkdir(f"{path}/tree/{i}")
        for j in range(100):
            with open(f"{path}/tree/{i}/{j}", "wb") as f:
                f.write(os.urandom(4000))
    with open(path + "/big", "wb") as f:
        for _ in range(BIG // 1_000_000):
            f.write(os.urandom(1_000_000))


def iperf(path):
    """A tar of iperf3 and what it links."""
    libraries = sp.run("ldd /usr/bin/iperf3 | grep -o '/[^ ]*'", shell=True, check=True, stdout=sp.PIPE).stdout.decode().split()
    sp.run(["tar", "-chf", path, "-C", "/", "usr/bin/iperf3", *[l.lstrip("/") for l in libraries], "--transform", "s,^lib/,usr/lib/,"], check=True)


def gigabits(text):
    """What the receiver of an iperf3 has got, in Gbit/s."""
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9
