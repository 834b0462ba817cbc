"""From the settings table to the frozen options of each core."""

import attrs

from mesh.forward import ForwardOptions
from mesh.swim_options import SwimOptions
from node.core import NodeOptions
from node.settings import Config


def node_options(config: Config) -> NodeOptions:
    """Return what the cores need to know of the configuration."""
    return NodeOptions(
        swim=SwimOptions.local(),
        forward=attrs.evolve(ForwardOptions(), route_wait_s=config.wait_timeout_s),
        flights_max=config.flights_max,
    )
