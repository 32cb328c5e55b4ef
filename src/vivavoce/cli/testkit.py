"""`vivavoce check` and `vivavoce bench`."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from vivavoce.check.command import CheckOptions, check_server
from vivavoce.cli.console import err, out
from vivavoce.scorecard.command import BenchOptions, bench_servers

CHECK_EPILOGUE = """\
For example, all checks of a server, or those of tools with a report for CI:

    vivavoce check ws://localhost:8080/v1/realtime

    vivavoce check http://localhost:8080 --only 'tools.*' --form junit --output check.xml

Exit status: 0 if no check failed, 1 if some did, 2 if the server cannot be reached."""

check = App(name="check", help_format="plaintext", help_epilogue=CHECK_EPILOGUE)


@check.default
def _check(
    url: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    options: CheckOptions = CheckOptions(),
) -> None:
    """Check whether a Realtime server keeps to the protocol, over the wire.

    Parameters
    ----------
    url
        ws(s):// or http(s)://, with or without /v1/realtime and ?model=; by default
        ws://localhost:8080/v1/realtime.
    """
    sys.exit(check_server(url, options, out, err))


BENCH_EPILOGUE = """\
For example, the load curve of the server on this machine, and two servers side by side:

    vivavoce bench http://localhost:8080 --html scorecard.html

    vivavoce bench http://localhost:8080 http://localhost:8000 --json both.json

Exit status: 0 if it was measured, 1 if less was found than --want-sessions and --want-ms ask for,
2 if a server cannot be reached or an option is wrong."""

bench = App(name="bench", help_format="plaintext", help_epilogue=BENCH_EPILOGUE)


@bench.default
def _bench(*urls: str, options: BenchOptions = BenchOptions()) -> None:
    """Measure how fast a Realtime server answers, and how many sessions it carries.

    Parameters
    ----------
    urls
        ws(s):// or http(s)://, with or without /v1/realtime and ?model=; two are compared.
    """
    sys.exit(bench_servers(urls, options, out, err))
