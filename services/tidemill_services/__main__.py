"""`python -m tidemill_services`: the server commands without the rest of the CLI."""

from tidemill_ports.garbage import not_looked_for

with not_looked_for():
    from tidemill_services.cli import application

if __name__ == "__main__":
    application(prog_name="python -m tidemill_services")
