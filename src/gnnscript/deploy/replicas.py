"""Replicas of a server on Kubernetes."""

from __future__ import annotations

import re
from importlib import resources

__all__ = ["kubernetes"]


def kubernetes(
    image: str,
    *,
    name: str = "gnnscript",
    replicas: int = 2,
    max_replicas: int | None = None,
    gpus: int = 0,
    cpus: int = 4,
    memory: str = "8Gi",
) -> str:
    """A manifest for replicas of a server that serves the same model repository.

    It has a Deployment, a Service in front of it, a headless Service whose name resolves to the
    addresses of all replicas (for clients that spread requests themselves), a disruption budget
    and an autoscaler by CPU load.

    Args:
        image: The image, made by the ``Dockerfile`` in the model repository.
        name: The name of all of them.
        replicas: Number of replicas, at least.
        max_replicas: Number of replicas that the autoscaler may go up to; by default four times
            ``replicas``.
        gpus: Number of GPUs of each replica.
        cpus: Number of CPUs of each replica.
        memory: Memory of each replica.

    Returns:
        The manifest, as YAML for ``kubectl apply -f``.

    Raises:
        ValueError: A number is out of range, or the name is none that Kubernetes takes.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", name):
        raise ValueError(
            "expected a name of at most 52 lower-case letters, digits and '-' that begins with a "
            f"letter and does not end with '-', got {name!r}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:@-]*", image):
        raise ValueError(f"expected an image, such as registry/models:1, got {image!r}")
    largest = 4 * replicas if max_replicas is None else max_replicas
    if not 1 <= replicas <= largest or gpus < 0 or cpus < 1:
        raise ValueError(
            f"expected 1 <= replicas <= max_replicas, gpus >= 0 and cpus >= 1, got "
            f"{replicas}, {largest}, {gpus} and {cpus}"
        )
    template = resources.files("gnnscript.deploy") / "templates" / "kubernetes.yaml"
    text = template.read_text(encoding="utf-8")
    values = {
        "IMAGE": image,
        "NAME": name,
        "REPLICAS": str(replicas),
        "LARGEST": str(largest),
        "CPUS": str(cpus),
        "MEMORY": memory,
        "GPUS": f"\n              nvidia.com/gpu: {gpus}" if gpus else "",
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
