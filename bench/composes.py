"""composes.py writes the compose files that the compose test brings up and takes down."""
import json, os

SERVICES = 10


def projects(into, image):
    """Compose files by name: ten services that know nothing of each other, and ten of which nine wait until the first is healthy."""
    service = {"image": image, "command": ["sleep", "100000"]}
    plain = {f"s{i}": service for i in range(SERVICES)}
    healthy = {"s0": {**service, "healthcheck": {"test": ["CMD", "true"], "interval": "500ms"}}}
    for i in range(1, SERVICES):
        healthy[f"s{i}"] = {**service, "depends_on": {"s0": {"condition": "service_healthy"}}}
    files = {"ten services": plain, "ten, one awaited": healthy}
    os.makedirs(into)
    for i, (name, services) in enumerate(files.items()):
        path = f"{into}/{i}.json"
        with open(path, "w") as f:
            json.dump({"name": f"bench{i}", "services": services}, f)
        files[name] = path
    return files
