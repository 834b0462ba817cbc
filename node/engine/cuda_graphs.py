"""CUDA graphs as the recorder of `node.engine.graphs`. All share one pool of memory: they never run at once."""

import torch

from node.engine.graphs import Body


class CudaRecorder:
    """Records on one device. The body may neither wait for the device nor compile a kernel."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, body: Body) -> tuple[Body, int]:
        """Capture the body's launches; the bytes are what the device has less of afterwards."""
        torch.cuda.synchronize(self._device)
        before, _ = torch.cuda.mem_get_info(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool):
            body()
        torch.cuda.synchronize(self._device)
        after, _ = torch.cuda.mem_get_info(self._device)
        return graph.replay, max(0, before - after)
