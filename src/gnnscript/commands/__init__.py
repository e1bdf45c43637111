"""The subcommands of ``gnnscript``: each module here, unless its name begins with ``_``, is one.

A command is a module with

- a docstring, whose first line is its summary in ``gnnscript --help`` and which as a whole is the
  description in ``gnnscript NAME --help``;
- ``configure(parser)``, which adds its arguments to an ``argparse.ArgumentParser``;
- ``run(arguments)``, which does the work and returns the exit code: 0 for success, 1 for a negative
  answer (a check that failed). It may raise :class:`gnnscript.GnnscriptError`, which ends the
  program with its message and exit code 2.

A command named like a Python keyword or a builtin module may end in ``_``.
"""
