"""layers.py makes images for the pull test: several layers with about 500 MB of files, gzip or zstd, from the tests' images and 4,000 small files.

Of each image there are copies whose layers have the same files and digests of their own, since one file stands before the others: every pull finds
nothing, and nothing has to be removed between pulls (which an ext4 file system without a journal takes ill for minutes)."""
import gzip, hashlib, http.client, io, json, os, random, subprocess as sp, tarfile

PARTS = [("debian-12", 0), ("postgres-1", 1), ("web-1", 1), ("nginx-1", 1), ("redis-1", 1)]
PACK = {"gzip": ["gzip", "-6nc"], "zstd": ["zstd", "-3qc"]}
UNPACK = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dqc"]}


def small_files():
    r, out = random.Random(1), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for i in range(4000):
            body = r.randbytes(r.randrange(50, 3000)).hex().encode()
            info = tarfile.TarInfo(f"app/node_modules/p{i % 400:03}/lib/f{i}.js")
            info.size, info.mode = len(body), 0o644
            t.addfile(info, io.BytesIO(body))
    return out.getvalue()


class Layers:
    """The layers' tars and blobs, in files below a directory."""

    def __init__(self, images, into):
        self.dir = into
        os.makedirs(into, exist_ok=True)
        self.parts = []
        for image, n in PARTS:
            with tarfile.open(f"{images}/{image}.tar") as archive:
                manifest = json.load(archive.extractfile("manifest.json"))
                tar = gzip.decompress(archive.extractfile(manifest[0]["Layers"][n]).read())
            self.add(image, tar)
        self.add("small", small_files())

    def add(self, name, tar):
        at = f"{self.dir}/{len(self.parts)}-{name}"
        with open(at + ".tar", "wb") as f:
            f.write(tar)
        for form, argv in PACK.items():
            with open(f"{at}.{form}", "wb") as f:
                sp.run(argv + [at + ".tar"], stdout=f, check=True)
        self.parts.append(at)

    def size(self, form):
        return sum(os.path.getsize(f"{at}.{form}") for at in self.parts)

    def push(self, host, repository, tag, form):
        """Makes one more copy and pushes it; tags are the copies."""
        registry = Registry(host, repository)
        layers, diffs = [], []
        for at in self.parts:
            body = f"{repository} {tag} {at}".encode()
            info = tarfile.TarInfo(".copy")
            info.size = len(body)
            before = info.tobuf() + body + bytes(-len(body) % 512)
            with open(at + ".tar", "rb") as f:
                diffs.append("sha256:" + hashlib.sha256(before + f.read()).hexdigest())
            packed = sp.run(PACK[form], input=before, stdout=sp.PIPE, check=True).stdout
            with open(f"{at}.{form}", "rb") as f:
                layers.append(registry.blob(f"application/vnd.oci.image.layer.v1.tar+{form}", packed + f.read()))
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]}, "rootfs": {"type": "layers", "diff_ids": diffs}}
        registry.manifest(tag, {"config": registry.blob("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()), "layers": layers})
        return f"{host}/{repository}:{tag}"

    def limit(self, form, into):
        """What decompressing and writing alone would take, on two cores."""
        sp.run(f"""ls {self.dir}/*.{form} | xargs -P2 -I@ sh -c '{" ".join(UNPACK[form])} @ >{into}/$(basename @)' && sync -f {into}""", shell=True, check=True)
        for at in self.parts:
            os.unlink(f"{into}/{os.path.basename(at)}.{form}")


class Registry:
    def __init__(self, host, repository):
        self.c, self.base = http.client.HTTPConnection(host), f"/v2/{repository}"

    def ask(self, method, path, body=b"", headers={}):
        self.c.request(method, path, body, headers)
        answer = self.c.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {text[:200]}")
        return answer

    def blob(self, kind, body):
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        at = self.ask("POST", self.base + "/blobs/uploads/").headers["Location"].split("/v2/", 1)[1]
        self.ask("PUT", f"/v2/{at}{'&' if '?' in at else '?'}digest={digest}", body, {"Content-Type": "application/octet-stream"})
        return {"mediaType": kind, "digest": digest, "size": len(body)}

    def manifest(self, tag, parts):
        kind = "application/vnd.oci.image.manifest.v1+json"
        self.ask("PUT", f"{self.base}/manifests/{tag}", json.dumps({"schemaVersion": 2, "mediaType": kind} | parts), {"Content-Type": kind})
