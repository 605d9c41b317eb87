"""From a URL to the fsspec file system that speaks its protocol."""

from typing import Any

from pdforge.errors import EnvironmentFault


def filesystem_of(url: str, **options: Any) -> tuple[Any, str]:
    """The fsspec file system of a URL, made with `options`, and the path within it.

    Raises:
        EnvironmentFault: the package that speaks this protocol is not installed, or there is no such protocol.
    """
    import fsspec  # noqa: PLC0415 - commands that read nothing must not pay for it

    try:
        filesystem, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise EnvironmentFault(
            f"{url}: {error}", remedy="install the fsspec package that speaks this protocol"
        ) from error
    return filesystem, str(path)
