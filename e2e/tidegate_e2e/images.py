"""Images without a registry: built from the project's Dockerfiles, loaded into the cluster.

A tag is the hash of what goes in, so an unchanged tree builds and loads nothing. Docker builds
where it answers; else buildah does, on a Debian base made by debootstrap, in a store of its own
below the cache folder.

`python -m tidegate_e2e.images build|list|load [--target NAME ...] [--instance NAME]`.
"""

import argparse
import ast
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

from tidegate_e2e import magika, textgenrnn
from tidegate_e2e.localcluster.binaries import cache_root, kubectl
from tidegate_e2e.localcluster.configs import PAUSE_IMAGE
from tidegate_e2e.localcluster.plan import INSTANCES, Plan, plan
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import (
    ClusterError,
    CommandError,
    install_packages,
    run,
    stream,
)

ROOT = Path(__file__).parents[2]
REGISTRY = "docker.io/tidegate"
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
_COMMON = ("pyproject.toml", "requirements.lock", ".dockerignore", "crds/tidegate_api")


@dataclass(frozen=True, kw_only=True)  # no slots: its tag is computed once
class Image:
    """An image of the project. `inputs`, files or folders of `context`, make its tag."""

    name: str
    dockerfile: Path
    inputs: Sequence[str]
    target: str = ""
    context: Path = ROOT
    fixed_tag: str = ""  # a second, stable tag that examples can name

    @cached_property
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


@cache
def project_images() -> Mapping[str, Image]:
    """Return every image by name: three programs and the demo's two models.

    Read once a process: what was built, loaded and installed is then the same, whoever edits.
    """
    context, text_context = magika.context(), textgenrnn.context()
    images = (
        Image(
            name="operator", dockerfile=ROOT / "Dockerfile", target="operator",
            inputs=(*_COMMON, "operator/tidegate_operator"),
        ),
        Image(
            name="router", dockerfile=ROOT / "Dockerfile", target="router",
            inputs=(*_COMMON, "router"),
        ),
        Image(
            name="worker", dockerfile=ROOT / "worker-image" / "Dockerfile", target="cpu",
            inputs=(*_COMMON, "worker-image"),
        ),
        Image(
            name="model-magika", dockerfile=context / "Dockerfile", context=context,
            inputs=("magika",), fixed_tag="1",
        ),
        Image(
            name="model-textgenrnn", dockerfile=text_context / "Dockerfile",
            context=text_context, inputs=("textgenrnn",), fixed_tag="1",
        ),
    )  # fmt: skip
    return MappingProxyType({image.name: image for image in images})


@cache
def canary_images() -> Mapping[str, Image]:
    """Return the images of `make demo-canary`: later versions of the demo's model, good and bad."""
    # Only that demo pays for the quantiser's import.
    from tidegate_e2e import magika_versions  # noqa: PLC0415

    images = [
        Image(
            name=f"model-magika-{version}", dockerfile=context / "Dockerfile", context=context,
            inputs=("magika",), fixed_tag="1",
        )
        for version, context in magika_versions.contexts().items()
    ]  # fmt: skip
    return MappingProxyType({image.name: image for image in images})


def known_images(names: Collection[str] = ()) -> Mapping[str, Image]:
    """Return every image that these names may mean; the canaries' only where one is named."""
    project = project_images()
    return project if set(names) <= project.keys() else {**project, **canary_images()}


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
    for image in known_images(wanted).values():
        if (not wanted or image.name in wanted) and not _exists(image.reference):
            with step(f"build image {image.reference}"):
                _build(image)


@cache
def docker_answers() -> bool:
    """Return whether a Docker engine, not only its client, is here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def ctr(plan: Plan) -> list[str]:
    """Return the prefix that speaks to an instance's containerd."""
    return ["ctr", "--address", str(plan.socket), "--namespace", "k8s.io"]


def load(plan: Plan, names: Iterable[str] = ()) -> None:
    """Import into the local cluster what it lacks, built or not, and drop what nothing names."""
    have = set(run(*ctr(plan), "images", "ls", "-q").split())
    wanted = set(names)
    images = known_images(wanted)
    for name, image in images.items():
        if (not wanted or name in wanted) and image.reference not in have:
            build([name])
            _import(plan, image)
    current = {PAUSE_IMAGE, *(tag for image in images.values() for tag in image.references)}
    stale = stale_images(have, current, _objects(plan))
    if stale:
        run(*ctr(plan), "images", "rm", *stale)


def _import(plan: Plan, image: Image) -> None:
    with step(f"load image {image.reference}"), archive(image) as file:
        import_into(plan, file)
        for tag in image.references[1:]:
            run(*ctr(plan), "images", "tag", "--force", image.reference, tag)


def stale_images(have: Iterable[str], current: Iterable[str], objects: str) -> list[str]:
    """Return the project's images that neither the tree nor an object of the cluster names.

    An older image is still in use while a stored revision names it: its next pod needs it.
    """
    ours = {name for name in have if name.startswith(f"{REGISTRY}/")}
    return sorted(name for name in ours - set(current) if name not in objects)


def _objects(plan: Plan) -> str:
    """Return, as text, every object of the cluster that can bring a pod back."""
    kinds = "pods,deployments.apps,replicasets.apps,controllerrevisions.apps,jobs.batch"
    return run(*kubectl(plan.kubeconfig), "get", kinds, "--all-namespaces", "-o", "json")


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
    """Return an archive of the sandbox image: a static busybox that sleeps.

    Debian's package is unpacked, not installed: it would replace a machine's own busybox.
    """
    file = cache_root() / "pause-1.tar"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
            _fetch_package("busybox-static", Path(folder))
            (Path(folder) / "Dockerfile").write_text(
                "FROM scratch\nCOPY bin/busybox /busybox\n"
                'ENTRYPOINT ["/busybox", "sleep", "2147483647"]\n'
            )
            unfinished = f"{folder}/pause.tar"
            _buildah("bud", "--isolation=chroot", "-t", PAUSE_IMAGE, folder)
            _buildah("push", PAUSE_IMAGE, f"docker-archive:{unfinished}:{PAUSE_IMAGE}")
            Path(unfinished).rename(file)
    return file


def _fetch_package(name: str, folder: Path) -> None:
    """Unpack a Debian package into a folder."""
    folder.chmod(0o755)  # apt's own user writes here
    try:
        run("apt-get", "download", "-q", name, cwd=folder)
    except CommandError:  # no package lists yet
        run("apt-get", "update", "-qq")
        run("apt-get", "download", "-q", name, cwd=folder)
    run("dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder))


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
        *_pip_mounts(), *common,
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


def _pip_mounts() -> list[str]:
    """Return the mounts that give pip, while building only, this machine's own settings."""
    listing = run(sys.executable, "-m", "pip", "config", "list")
    file = cache_root() / "pip.conf"
    file.touch(mode=0o600)  # an index address may carry a password
    file.write_text(pip_configuration(listing))
    mounts = ["-v", f"{file}:/etc/pip.conf:ro"]
    for setting in pip_settings(listing).values():
        for word in setting.split():
            if word.startswith("/") and Path(word).is_dir() and any(Path(word).iterdir()):
                mounts += ["-v", f"{word}:{word}:ro"]
    return mounts


def pip_settings(listing: str) -> dict[str, str]:
    """Return what `pip config list` prints, {option: value}; environment variables come last."""
    lines = sorted(listing.splitlines(), key=lambda line: line.startswith(":env:"))
    pairs = (line.partition("=") for line in lines if "=" in line)
    found = {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in pairs}
    return {"cert": "/etc/ssl/certs/ca-certificates.crt"} | found


def pip_configuration(listing: str) -> str:
    """Return the pip.conf of a build; certificates are the ones mounted there."""
    settings = pip_settings(listing) | {"cert": "/etc/ssl/certs/ca-certificates.crt"}
    lines = (f"{key} = {value}" for key, value in sorted(settings.items()))
    return "\n".join(["[global]", *lines, ""])


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
    """Build, list or load."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.images")
    parser.add_argument("verb", choices=("build", "list", "load"))
    parser.add_argument("--target", nargs="*", default=(), help="image names; all when omitted")
    parser.add_argument("--instance", choices=INSTANCES, default="demo")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "build":
            build(arguments.target)
        elif arguments.verb == "load":
            load(plan(arguments.instance), arguments.target)
        for reference in image_references().values():
            say(reference)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
