"""Published reference batches by name: where they lie, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

from diffcli.config.suggest import nearest

_OPENAI = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches"
_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs"


@dataclass(frozen=True, kw_only=True)
class PublishedReference:
    """A file of statistics, with images or without; neither size nor digest of it was published."""

    name: str
    url: str

    @property
    def file_name(self) -> str:
        """As it was published."""
        return self.url.rpartition("/")[2]


def _openai(path: str) -> PublishedReference:
    return PublishedReference(name=path.rpartition("/")[2].removesuffix(".npz"), url=f"{_OPENAI}/{path}")


PUBLISHED_REFERENCES = (
    _openai("lsun/bedroom/VIRTUAL_lsun_bedroom256.npz"),
    _openai("lsun/cat/VIRTUAL_lsun_cat256.npz"),
    _openai("lsun/horse/VIRTUAL_lsun_horse256.npz"),
    _openai("imagenet/64/VIRTUAL_imagenet64_labeled.npz"),
    _openai("imagenet/128/VIRTUAL_imagenet128_labeled.npz"),
    _openai("imagenet/256/VIRTUAL_imagenet256_labeled.npz"),
    _openai("imagenet/512/VIRTUAL_imagenet512.npz"),
    *(
        PublishedReference(name=f"edm-{name}", url=f"{_EDM}/{name}.npz")
        for name in ("cifar10-32x32", "ffhq-64x64", "afhqv2-64x64", "imagenet-64x64")
    ),
)


def published_reference(name: str) -> PublishedReference | None:
    """The published file of a name; None when there is none."""
    return next((each for each in PUBLISHED_REFERENCES if each.name == name), None)


def names_like(name: str) -> tuple[str, ...]:
    """Published names that are spelled like this one."""
    return nearest(name, [each.name for each in PUBLISHED_REFERENCES], count=2)
