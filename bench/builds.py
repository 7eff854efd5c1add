"""builds.py makes the build contexts that the build test times, and says how each builder is called."""
import os, random

REGISTRY = "127.0.0.1:5000"

# A compiled stage, results between stages, and steps that read what the one before wrote.
BENCH = f"""FROM {REGISTRY}/python:1 AS build
COPY src/ /src/
RUN python3 -m compileall -q /src
RUN mkdir /out && cat /src/*.py > /out/all.py && echo 'print(x200)' >> /out/all.py
RUN python3 /out/all.py > /out/result.txt
FROM {REGISTRY}/busybox:1
COPY --from=build /out /app
RUN ls -l /app
CMD ["cat", "/app/result.txt"]
"""


def contexts(into):
    """Directories by name: one step, the bench Dockerfile, and 20,000 files of 1 GB."""
    dirs = {name: f"{into}/{name}" for name in ["step", "bench", "large"]}
    for d in dirs.values():
        os.makedirs(d)
    write(f"{dirs['step']}/Dockerfile", f"FROM {REGISTRY}/busybox:1\nRUN echo done >/done\n")
    write(f"{dirs['bench']}/Dockerfile", BENCH)
    os.mkdir(f"{dirs['bench']}/src")
    for i in range(1, 201):
        write(f"{dirs['bench']}/src/m{i}.py", f"x{i} = sum(range({i}))\n")
    write(f"{dirs['large']}/Dockerfile", f"FROM {REGISTRY}/busybox:1\nCOPY . /large\n")
    r = random.Random(1)
    for i in range(20000):
        folder = f"{dirs['large']}/d{i % 200:03}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/f{i}", "wb") as f:
            f.write(r.randbytes(53687))  # 1 GiB in all
    return dirs


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def commands(engines, run, podman):
    """How a context is built, by builder: functions of its directory, a tag and more arguments."""
    buildctl = ["buildctl", "--addr", f"unix://{run}/buildkit.sock", "build", "--progress=quiet", "--frontend", "dockerfile.v0"]
    return {
        "wherry": lambda d, tag, *more: engines["wherry"] + ["build", "-q", "-t", tag, *more, d],
        "docker": lambda d, tag, *more: engines["docker"] + ["build", "-q", "-t", tag, *more, d],
        "podman": lambda d, tag, *more: engines["podman"] + ["build", "-q", *podman, "-t", tag, *more, d],
        "buildkitd": lambda d, tag, *more: buildctl + ["--local", f"context={d}", "--local", f"dockerfile={d}", *more, "--output", f"type=image,name=docker.io/library/{tag}"],
    }
