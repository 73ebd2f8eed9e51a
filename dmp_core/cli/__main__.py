"""`python -m dmp_core.cli`"""

from dmp_core.cli import main

main()
