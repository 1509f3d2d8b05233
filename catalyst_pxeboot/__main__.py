"""`python -m catalyst_pxeboot` is the command catalyst-pxeboot."""

from catalyst_pxeboot.cli.main import run

if __name__ == "__main__":
    run()
