"""Jobs in a bounded queue, worked off by one thread a device: what every server of this package has in common.

It knows neither HTTP nor pages. `Service` takes a `Request` and gives a `Status`, over and over, until there is a file.
"""

from i2vgen_ms.service.job import KINDS, STATES, Preview, Request, Status
from i2vgen_ms.service.limits import RequestLimits, ServiceSettings
from i2vgen_ms.service.models import Models
from i2vgen_ms.service.service import Service

__all__ = ["KINDS", "STATES", "Models", "Preview", "Request", "RequestLimits", "Service", "ServiceSettings", "Status"]
