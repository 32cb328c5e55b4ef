"""Packages of somebody else that offer engines."""

from pathlib import Path


def install(
    site: Path,
    package: str,
    modules: dict[str, str],
    entries: str,
    *,
    group: str = "vivavoce.engines",
) -> None:
    """A package of someone else, as an installer leaves it."""
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source)
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entries}")
