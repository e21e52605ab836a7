"""`python -m tidemill_services`: the server commands without the rest of the CLI."""

from tidemill_services.cli import application

if __name__ == "__main__":
    application(prog_name="python -m tidemill_services")
