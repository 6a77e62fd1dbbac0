"""``python -m openwebui_billing_reconcile status``."""

import sys

from .cli import main

sys.exit(main())
