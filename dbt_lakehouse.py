"""dbt imports this module by its name and asks the plugin here before each command: `python_ops.jobs.build.before`."""

from __future__ import annotations

import click
from dbt.plugins import dbtPlugin


class Lakehouse(dbtPlugin):
    """Lets a dbt command of this project, however it was started, begin on what `lakeops` would begin on."""

    def initialize(self) -> None:
        """Raises what does not allow the command; dbt prints it and exits 2."""
        if self.project_name == "lakehouse":
            from python_ops.jobs.build import before

            before(click.get_current_context())


plugins = [Lakehouse]
