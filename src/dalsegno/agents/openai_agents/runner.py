"""The SDK's default runner, with one more thing that it knows: a run that begins inside a call of an agent as a tool
goes on in the turn.

`Agent.as_tool` starts its run through `Runner.run`, and there is no other way in. Every other run is as before.
"""

from dataclasses import replace
from typing import Any, cast

from agents import RunConfig
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner

from dalsegno.agents.openai_agents.guardrails import served_guardrail
from dalsegno.agents.openai_agents.model import RecordedProvider, recorded
from dalsegno.agents.openai_agents.run import Run, maybe_run


class Interposed:
    """Has the methods of a runner."""

    def __init__(self, inner: AgentRunner) -> None:
        self.inner = inner

    async def run(self, starting_agent: Any, input: Any, **kwargs: Any) -> Any:
        """As `Runner.run`."""
        run = _entered()
        if run is None:
            return await self.inner.run(starting_agent, input, **kwargs)
        return await self.inner.run(run.serve(starting_agent), input, **_given(kwargs))

    def run_sync(self, starting_agent: Any, input: Any, **kwargs: Any) -> Any:
        """As `Runner.run_sync`."""
        return self.inner.run_sync(starting_agent, input, **kwargs)

    def run_streamed(self, starting_agent: Any, input: Any, **kwargs: Any) -> Any:
        """As `Runner.run_streamed`."""
        run = _entered()
        if run is None:
            return self.inner.run_streamed(starting_agent, input, **kwargs)
        return self.inner.run_streamed(run.serve(starting_agent), input, **_given(kwargs))


def interposed() -> Interposed:
    """The default runner, which is one of these from now on."""
    runner = get_default_agent_runner()
    if isinstance(runner, Interposed):
        return runner
    made = Interposed(runner)
    set_default_agent_runner(cast(AgentRunner, made))
    return made


def quiet(config: RunConfig) -> RunConfig:
    """The configuration with recorded models and guardrails. Traces go out only where `tracing` says how."""
    return replace(
        config,
        model=config.model if config.model is None or isinstance(config.model, str) else recorded(config.model),
        model_provider=_provider(config),
        input_guardrails=[served_guardrail(one) for one in config.input_guardrails or ()],
        output_guardrails=[served_guardrail(one) for one in config.output_guardrails or ()],
        tracing_disabled=config.tracing_disabled or config.tracing is None,
    )


def _entered() -> Run | None:
    run = maybe_run()
    if run is None or run.entered:
        return None
    run.entered = True
    return run


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    config = kwargs.get("run_config")
    return {**kwargs, "run_config": quiet(RunConfig(**config) if isinstance(config, dict) else config or RunConfig())}


def _provider(config: RunConfig) -> RecordedProvider:
    found = config.model_provider
    return found if isinstance(found, RecordedProvider) else RecordedProvider(found)
