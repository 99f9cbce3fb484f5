"""The schemes of all sites as a header holds them: a table of distinct ones, and an index for each site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edadm.quant.scheme import Scheme, SchemeError, SiteScheme


def to_table(schemes: Mapping[str, SiteScheme]) -> dict[str, Any]:
    """`schemes`, the distinct ones, and `sites`: by name the index of a site's scheme and its segments."""
    distinct: list[Scheme] = []
    sites = {}
    for name in sorted(schemes):
        scheme = schemes[name].scheme
        if scheme not in distinct:
            distinct.append(scheme)
        sites[name] = [distinct.index(scheme), list(schemes[name].segments)]
    return {"schemes": [scheme.to_json() for scheme in distinct], "sites": sites}


def from_table(told: Mapping[str, Any]) -> dict[str, SiteScheme]:
    """The schemes of all sites by name; what follows index and segments of a site is left alone.

    Raises:
        SchemeError: there is no such table, or a scheme in it is none.
    """
    try:
        distinct = [Scheme.from_json(scheme) for scheme in told["schemes"]]
        return {name: _site_scheme(distinct, *entry[:2]) for name, entry in told["sites"].items()}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SchemeError(f"its table of schemes is none ({error!r})") from None


def _site_scheme(distinct: list[Scheme], index: int, segments: list[int]) -> SiteScheme:
    if not (isinstance(index, int) and 0 <= index < len(distinct)):
        raise SchemeError(f"its table of schemes has no scheme {index!r}")
    if not all(isinstance(size, int) and size > 0 for size in segments):
        raise SchemeError(f"its table of schemes has the segments {segments!r}, which are no sizes")
    return SiteScheme(distinct[index], tuple(segments))
