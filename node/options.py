"""From the settings table to the frozen options of each core."""

import attrs

from mesh.forward import ForwardOptions
from mesh.links import LinkOptions
from mesh.route import Policy, RouteOptions
from mesh.swim_options import SwimOptions
from node.core import NodeOptions
from node.settings import Config


def node_options(config: Config) -> NodeOptions:
    """Return what the cores need to know of the configuration."""
    mesh_name = "" if config.mesh_key_file else config.mesh_name  # a seal binds the name itself
    swim = attrs.evolve(
        SwimOptions.local(),
        observer=config.role == "observer",
        mesh_name=mesh_name,
        coordinates=config.coordinates == "on",
    )
    return NodeOptions(
        swim=swim,
        links=LinkOptions(silence_s=config.link_silence_s),
        forward=ForwardOptions(
            route_wait_s=config.wait_timeout_s,
            moves_max=config.moves_max,
            route=RouteOptions(
                policy=Policy(config.routing),
                zone=config.zone or "",
                prefix_affinity=config.prefix_affinity == "on",
            ),
        ),
        flights_max=config.flights_max,
    )
