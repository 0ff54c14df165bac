"""Templates of the reports' pages: one look, and an error where a template names what it was not given."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(package: str, folder: str) -> Environment:
    """The templates in ``folder`` of ``package``; a page can include ``style.css``, the look of all."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), PackageLoader("rl_rec", "templates")]),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
