"""The accounts of tenants: whose turn it is, in tokens that have been computed.

Theory of operation. This is start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996) with tokens as the
service, as the virtual token counter uses them (Sheng et al.: OSDI 2024). One clock counts what a tenant that
always has work has been given: a step moves it by its tokens, divided by the tenants at hand. A sequence starts
where the clock is, or where the sequences that its tenant has sent before it end, whichever is later; so a
tenant who sends a thousand at once queues behind himself, and one who sends his first comes to the front.

What a sequence will cost is not known when it comes. An estimate is charged; when it ends the tenant's account
is put right, which moves his later sequences and no place that has been given out: starts never change.

    an idle tenant saves nothing     a start is never before the clock
    a tenant's own order is kept     his starts never sink
    nobody waits for ever            the clock moves with all work, by at least a part in as many as there are
                                     tenants at hand, of which the queue holds a bounded number; once it has
                                     passed a start, nobody new comes before it
"""

import attrs

OUTPUT_TOKENS = 256
"""What an output is estimated to cost until it has ended, or its limit if that is less."""

ACCOUNTS_SPARE = 64
"""Accounts of tenants without work that are kept before they are looked through."""


@attrs.define
class Account:
    """One tenant's."""

    until: float = 0.0
    """Where on the clock his sequences end, as far as they are known."""
    last: float = 0.0
    """The start of his latest sequence."""
    live: int = 0
    """His sequences at hand."""


@attrs.define
class Accounts:
    """All tenants' of one engine. Units are tokens."""

    clock: float = 0.0
    _accounts: dict[str, Account] = attrs.field(init=False, factory=dict)
    _tenants: int = attrs.field(init=False, default=0)
    """Tenants with sequences at hand."""

    def __len__(self) -> int:
        """How many accounts are kept."""
        return len(self._accounts)

    def enter(self, tenant: str, cost: int) -> float:
        """Charge a tenant for a sequence that is estimated to cost so much; return where it starts."""
        account = self._accounts.setdefault(tenant, Account())
        start = max(self.clock, account.until, account.last)
        account.last, account.until = start, start + cost
        self._tenants += account.live == 0
        account.live += 1
        return start

    def served(self, tokens: int) -> None:
        """Let the clock move by a step."""
        self.clock += tokens / max(self._tenants, 1)

    def leave(self, tenant: str, cost: int, actual: int) -> None:
        """Put an account right: a sequence that was charged `cost` has ended, and has cost `actual`."""
        account = self._accounts[tenant]
        account.until += actual - cost
        account.live -= 1
        self._tenants -= account.live == 0
        if self._tenants == 0:
            self._accounts.clear()
        elif len(self._accounts) > 2 * self._tenants + ACCOUNTS_SPARE:
            self._forget()

    def _forget(self) -> None:
        """Drop the accounts that say nothing: no work at hand, and no debt."""
        self._accounts = {
            tenant: account
            for tenant, account in self._accounts.items()
            if account.live or account.until > self.clock
        }
