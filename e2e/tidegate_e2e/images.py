"""Images without a registry: built from the project's Dockerfiles, loaded into the cluster.

A tag is the hash of what goes in, so an unchanged tree builds and loads nothing. Docker builds
where it answers; else buildah does, on a Debian base made by debootstrap, in a store of its own
below the cache folder.

`python -m tidegate_e2e.images build|list [--target NAME ...]`.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidegate_e2e import magika
from tidegate_e2e.localcluster.binaries import cache_root
from tidegate_e2e.localcluster.configs import PAUSE_IMAGE
from tidegate_e2e.localcluster.plan import Plan
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import CommandError, install_packages, run, stream

ROOT = Path(__file__).parents[2]
REGISTRY = "docker.io/tidegate"
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
_COMMON = ("pyproject.toml", "requirements.lock", ".dockerignore", "crds/tidegate_api")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the project. `inputs`, files or folders of `context`, make its tag."""

    name: str
    dockerfile: Path
    inputs: Sequence[str]
    target: str = ""
    context: Path = ROOT
    fixed_tag: str = ""  # a second, stable tag that examples can name

    @property
    def reference(self) -> str:
        """Return docker.io/tidegate/NAME:HASH."""
        return f"{REGISTRY}/{self.name}:{content_hash(self.context, self._files())}"

    @property
    def references(self) -> tuple[str, ...]:
        """Return every tag, the content's first."""
        fixed = (f"{REGISTRY}/{self.name}:{self.fixed_tag}",) if self.fixed_tag else ()
        return (self.reference, *fixed)

    def _files(self) -> Iterator[Path]:
        yield self.dockerfile
        for name in self.inputs:
            yield from files_below(self.context / name)


def project_images() -> dict[str, Image]:
    """Return every image by name: three programs and the demo's model."""
    context = magika.context()
    return {
        "operator": Image(
            name="operator", dockerfile=ROOT / "Dockerfile", target="operator",
            inputs=(*_COMMON, "operator/tidegate_operator"),
        ),
        "router": Image(
            name="router", dockerfile=ROOT / "Dockerfile", target="router",
            inputs=(*_COMMON, "router"),
        ),
        "worker": Image(
            name="worker", dockerfile=ROOT / "worker-image" / "Dockerfile", target="cpu",
            inputs=(*_COMMON, "worker-image"),
        ),
        "model-magika": Image(
            name="model-magika", dockerfile=context / "Dockerfile", context=context,
            inputs=("magika",), fixed_tag="1",
        ),
    }  # fmt: skip


def files_below(path: Path) -> Iterator[Path]:
    """Yield a file, or a folder's files without compiled Python, in order."""
    if path.is_file():
        yield path
        return
    for entry in sorted(path.rglob("*")):
        if entry.is_file() and "__pycache__" not in entry.parts:
            yield entry


def content_hash(root: Path, files: Iterable[Path]) -> str:
    """Return 12 hex digits over the files' relative names and bytes."""
    digest = hashlib.sha256()
    for file in files:
        name = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        data = file.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def image_references() -> Mapping[str, str]:
    """Return {name: reference by content} of every image."""
    return {name: image.reference for name, image in project_images().items()}


def build(names: Iterable[str] = ()) -> None:
    """Build the images that do not exist yet."""
    wanted = set(names)
    for image in project_images().values():
        if (not wanted or image.name in wanted) and not _exists(image.reference):
            with step(f"build image {image.reference}"):
                _build(image)


def docker_answers() -> bool:
    """Return whether a Docker engine, not only its client, is here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def ctr(plan: Plan) -> list[str]:
    """Return the prefix that speaks to an instance's containerd."""
    return ["ctr", "--address", str(plan.socket), "--namespace", "k8s.io"]


def load(plan: Plan) -> None:
    """Import into the local cluster what it lacks, and drop the project's older images."""
    have = set(run(*ctr(plan), "images", "ls", "-q").split())
    wanted = project_images().values()
    for image in wanted:
        if image.reference not in have:
            with step(f"load image {image.reference}"), archive(image) as file:
                import_into(plan, file)
                for tag in image.references[1:]:
                    run(*ctr(plan), "images", "tag", "--force", image.reference, tag)
    keep = {PAUSE_IMAGE, *(tag for image in wanted for tag in image.references)}
    stale = [name for name in have if name.startswith(f"{REGISTRY}/") and name not in keep]
    if stale:
        run(*ctr(plan), "images", "rm", *stale)


def import_into(plan: Plan, file: Path) -> None:
    """Import a docker archive into an instance's containerd."""
    run(*ctr(plan), "images", "import", str(file))


@contextmanager
def archive(image: Image) -> Iterator[Path]:
    """Yield a docker archive of a built image; it is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        file = Path(folder) / "image.tar"
        if docker_answers():
            run("docker", "save", "-o", str(file), image.reference)
        else:
            _buildah("push", image.reference, f"docker-archive:{file}:{image.reference}")
        yield file


def pause_archive() -> Path:
    """Return an archive of the sandbox image: a static busybox that sleeps."""
    file = cache_root() / "pause-1.tar"
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy("/bin/busybox", f"{folder}/busybox")
            (Path(folder) / "Dockerfile").write_text(
                "FROM scratch\nCOPY busybox /busybox\n"
                'ENTRYPOINT ["/busybox", "sleep", "2147483647"]\n'
            )
            _buildah("bud", "--isolation=chroot", "-t", PAUSE_IMAGE, folder)
            _buildah("push", PAUSE_IMAGE, f"docker-archive:{file}:{PAUSE_IMAGE}")
    return file


def _exists(reference: str) -> bool:
    tool = ["docker", "image"] if docker_answers() else [*_buildah_command()]
    command = [*tool, "inspect", reference]
    if not docker_answers():
        command = [*tool, "inspect", "--type", "image", reference]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _build(image: Image) -> None:
    target = ["--target", image.target] if image.target else []
    common = ["-t", image.reference, "-f", str(image.dockerfile), *target, str(image.context)]
    if docker_answers():
        stream("docker", "build", *common)
        return
    install_packages(("buildah", "debootstrap"))
    _ensure_base()
    stream(
        *_buildah_command(), "bud", "--layers", "--isolation=chroot", "--network=host",
        "--pull-never", "-v", "/etc/ssl/certs:/etc/ssl/certs:ro",
        "-v", f"{_pip_configuration()}:/etc/pip.conf:ro", *common,
    )  # fmt: skip


def _ensure_base() -> None:
    """Make Debian's base image once, by debootstrap from the machine's own package source."""
    if _exists(BASE_IMAGE):
        return
    with step("make the Debian base image (debootstrap, a minute, once)"):
        folder = Path(tempfile.mkdtemp(dir=cache_root(), prefix="debootstrap-"))
        try:
            stream(
                "debootstrap", "--variant=minbase", "--include=ca-certificates",
                "bookworm", str(folder),
            )  # fmt: skip
            for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(folder / leftover)
            container = _buildah("from", "scratch").strip()
            _buildah("add", "-q", container, str(folder), "/")
            _buildah("config", "--cmd", "bash", "--env", "PATH=/usr/local/sbin:"
                     "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)  # fmt: skip
            _buildah("commit", "-q", "--rm", container, BASE_IMAGE)
        finally:
            shutil.rmtree(folder)


def _pip_configuration() -> Path:
    """Return a pip.conf, for building only: the machine's own settings, else its certificates."""
    own = Path("/etc/pip.conf")
    if own.exists():
        return own
    file = cache_root() / "pip.conf"
    file.write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    return file


def _buildah_command() -> list[str]:
    policy = cache_root() / "policy.json"
    if not policy.exists():
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    store = cache_root() / "containers"
    return ["buildah", "--root", str(store), "--runroot", "/run/tidegate-containers",
            "--storage-driver", "overlay"]  # fmt: skip


def _buildah(verb: str, *arguments: str) -> str:
    return run(*_buildah_command(), verb, *_policy(verb), *arguments)


def _policy(verb: str) -> list[str]:
    file = str(cache_root() / "policy.json")
    return ["--signature-policy", file] if verb in {"bud", "push", "commit", "from"} else []


def main() -> int:
    """Build or list."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.images")
    parser.add_argument("verb", choices=("build", "list"))
    parser.add_argument("--target", nargs="*", default=())
    arguments = parser.parse_args()
    try:
        if arguments.verb == "build":
            build(arguments.target)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for reference in image_references().values():
        say(reference)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    sys.exit(main())
