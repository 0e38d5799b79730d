"""Pictures from many URLs: fetched in parallel into a cache folder, politely, and only once.

`fetch_pictures` is the door. Below it: `addresses` (which URLs may be asked at all), `transfer` (one
request, limited in time and size), `ledger` (what became of each URL, kept on disk) and `fetching`
(who is asked when). The standard library's HTTP client does the talking; threads wait for the network, so
hundreds of pictures a second need no other library.
"""

from __future__ import annotations

from vwkit.downloading.fetching import Limits, Outcome, fetch_pictures

__all__ = ["Limits", "Outcome", "fetch_pictures"]
