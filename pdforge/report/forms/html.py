"""A report as one HTML page with interactive charts. It holds all it needs and asks no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pdforge.compile.templates import template_directory
from pdforge.errors import EnvironmentFault
from pdforge.report.compare import Comparison
from pdforge.report.forms.charts import charts
from pdforge.report.tables import Table


def to_html(title: str, comparison: Comparison, tables: Sequence[Table]) -> str:
    """The page. What runs and recipes are called can only become text in it.

    Raises:
        EnvironmentFault: the library that draws in the browser is not installed.
    """
    import jinja2  # noqa: PLC0415 - heavy, and only here
    from markupsafe import Markup  # noqa: PLC0415

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = charts(comparison)
    return environment.get_template("report.html.j2").render(
        title=title,
        tables=tables,
        charts=[(name, text) for name, text, _ in drawn],
        specs=Markup(_embedded([spec for _, _, spec in drawn])),
        library=Markup(_library()) if drawn else "",
    )


def _embedded(value: Any) -> str:
    """JSON that nothing in it can end the script element around."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed, as one script."""
    try:
        import vl_convert  # noqa: PLC0415 - heavy, and optional
    except ImportError as error:
        raise EnvironmentFault(
            "an HTML report needs vl-convert-python, which is not installed", remedy="pip install 'pdforge[report]'"
        ) from error
    source: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return source.replace("</script", "<\\/script")
