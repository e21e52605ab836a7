"""Every Prometheus series of the control plane, each in the list of its subject; `docs/metrics.md` says what they mean.

Label values come from the contract, the registered models and the accounts: what a caller writes makes no series.
"""

from tidemill_services.metrics.billing import BillingPage
from tidemill_services.metrics.measured_database import MeasuredDatabase
from tidemill_services.metrics.page import ProcessPage
from tidemill_services.metrics.process import Metrics
from tidemill_services.metrics.tallies import Times

__all__ = ["BillingPage", "MeasuredDatabase", "Metrics", "ProcessPage", "Times"]
