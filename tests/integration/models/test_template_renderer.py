"""Chat templates in their own processes: what a hostile one does, and what a good one costs nobody else."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress

import pytest

from tests.processes import children_of, command_of, is_alive, num_cpu_ticks
from tidemill_models.errors import (
    TemplateError,
    TemplateMemoryLimitError,
    TemplateRefusedError,
    TemplateRendererError,
    TemplateRenderError,
    TemplateSizeLimitError,
    TemplateSyntaxError,
    TemplateTimeLimitError,
)
from tidemill_models.template_process import TemplateLimits
from tidemill_models.template_renderer import TemplateRenderer

LIMITS = TemplateLimits(seconds=3)


@pytest.fixture
def renderer():
    with TemplateRenderer(LIMITS, num_processes=1) as one:
        yield one


async def test_templates_render_as_in_transformers(renderer):
    source = textwrap.dedent(
        """\
        {%- for m in messages %}
            {%- if m.role == 'skip' %}{% continue %}{% endif %}
            {% generation %}<{{ m.role }}>{{ m.content | trim }}{% endgeneration %}
        {% endfor %}
        {{ messages | tojson }}{{ strftime_now('%Y') | length }}{% if undefined_name %}x{% endif %}
        """
    )
    messages = [{"role": "skip", "content": "no"}, {"role": "user", "content": " é<&> "}]
    text = await renderer.render(source, {"messages": messages})
    assert text == '<user>é<&>[{"role": "skip", "content": "no"}, {"role": "user", "content": " é<&> "}]4'


async def test_a_refusal_carries_what_the_template_says(renderer):
    with pytest.raises(TemplateRefusedError, match="roles must alternate"):
        await renderer.render("{{ raise_exception('roles must alternate') }}", {})


GROWING = """{% set n = namespace(x='a' * 1000000) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}"""
LONG = "{% for i in range(1000) %}{% for j in range(5000) %}{% endfor %}{% endfor %}done"  # a part of a second
HOSTILE = [
    ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", TemplateTimeLimitError),
    ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", TemplateError),
    ("{{ 'a' * 10**9 }}", TemplateMemoryLimitError),
    (GROWING, TemplateMemoryLimitError),
    ("{{ [0] * 10**9 }}", TemplateMemoryLimitError),
    ("{{ '%1000000000d' % 1 }}", TemplateMemoryLimitError),
    ("{{ 'a' | center(10**9) }}", TemplateMemoryLimitError),
    ("{{ range(10**9) | list }}", TemplateRenderError),
    ("{% for i in range(100000) %}{{ 'aaaaaaaaaa' }}{% endfor %}", TemplateSizeLimitError),
    ("{{ 10 ** (10 ** 10) }}", TemplateTimeLimitError),
    ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", TemplateError),
    ("{% if 1 %}" * 3_000 + "{% endif %}" * 3_000, TemplateError),
    ("{{ " + "-" * 30_000 + "1 }}", TemplateError),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", TemplateRenderError),
    ("{{ raise_exception.__globals__['os'] }}", TemplateRenderError),
    ("{{ self.__init__.__globals__ }}", TemplateRenderError),
    ("{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}", TemplateRenderError),
    ("{{ messages.append(1) }}", TemplateRenderError),
    ("{% include '/etc/passwd' %}", TemplateRenderError),
    ("{{ missing.attribute }}", TemplateRenderError),
    ("{{ raise_exception('a' * 1000) }}", TemplateRefusedError),
    ("{% endfor %}", TemplateSyntaxError),
    ("{{ 'open", TemplateSyntaxError),
    ("a\ud800", TemplateRenderError),
    ("a" * 70_000, TemplateSizeLimitError),
]


@pytest.mark.parametrize(("source", "error"), HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
async def test_a_hostile_template_ends_in_its_own_error_and_the_next_one_renders(renderer, source, error):
    began = time.monotonic()
    with pytest.raises(error) as caught:
        await renderer.render(source, {"messages": [1]})
    assert time.monotonic() - began < LIMITS.seconds + 60
    assert len(str(caught.value)) < 700
    assert await renderer.render("{{ messages[0] }}", {"messages": [1]}) == "1"


async def test_what_a_template_left_in_memory_does_not_weigh_on_the_next(renderer):
    """Constants are folded when a template is compiled, and compiled templates are kept."""
    for number in range(40):
        with pytest.raises(TemplateSizeLimitError):
            await renderer.render(f"{{{{ 'a' * {4_000_000 + number} }}}}", {})
    assert await renderer.render("{{ ('b' * 80000000) | length }}", {}) == "80000000"


async def test_one_hostile_template_does_not_hold_up_the_others():
    with TemplateRenderer(TemplateLimits(seconds=60), num_processes=2) as renderer:
        endless = asyncio.ensure_future(renderer.render(HOSTILE[0][0], {}))
        texts = await asyncio.gather(*(renderer.render("{{ n }}", {"n": n}) for n in range(50)))
        assert texts == [str(n) for n in range(50)]
        assert not endless.done()
    with pytest.raises(TemplateRendererError):
        await endless


async def test_a_rendering_that_nobody_waits_for_anymore_disturbs_no_other(renderer):
    waiting = [asyncio.ensure_future(renderer.render("{{ n }}", {"n": n})) for n in range(20)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    assert [await task for task in waiting[1::2]] == [str(n) for n in range(1, 20, 2)]


def test_many_threads_share_one_renderer():
    texts: dict[int, str] = {}
    with TemplateRenderer(num_processes=2) as renderer:

        def ask(number: int) -> None:
            texts[number] = renderer.render_blocking("{{ n }}", {"n": number})

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {number: str(number) for number in range(16)}


def workers(parent_pid: int | None = None) -> list[int]:
    """The renderers' processes among all that a process has started, this one when None."""
    return [pid for pid in children_of(parent_pid or os.getpid()) if b"template_worker" in command_of(pid)]


def test_a_worker_that_stood_still_in_mid_rendering_goes_on(renderer):
    """A limit of 3 s is one of the processor's time: it stands still for longer."""
    texts = []
    renderer.render_blocking("warm", {})
    (worker,) = workers()
    idle_ticks = num_cpu_ticks(worker)
    asking = threading.Thread(target=lambda: texts.append(renderer.render_blocking(LONG, {})))
    asking.start()
    assert wait_until(lambda: num_cpu_ticks(worker) > idle_ticks + 2, seconds=60)
    os.kill(worker, signal.SIGSTOP)
    time.sleep(LIMITS.seconds + 1.5)
    os.kill(worker, signal.SIGCONT)
    asking.join()
    assert texts == ["done"]


def test_a_worker_that_was_killed_is_replaced(renderer):
    assert renderer.render_blocking("a", {}) == "a"
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert renderer.render_blocking("b", {}) == "b"


def open_files() -> set[str]:
    """What this process holds open; each pipe and socket has a number of its own."""
    links = set()
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(FileNotFoundError):  # the listing's own
            links.add(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
    return links


def test_close_ends_the_processes_and_what_waits_and_is_final():
    open_before = open_files()
    renderer = TemplateRenderer(TemplateLimits(seconds=30), num_processes=1)
    errors: list[TemplateRendererError] = []

    def wait_for(source: str) -> None:
        try:
            renderer.render_blocking(source, {})
        except TemplateRendererError as error:
            errors.append(error)

    renderer.render_blocking("warm", {})
    threads = [threading.Thread(target=wait_for, args=(HOSTILE[0][0],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    renderer.close()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 25  # and not the 30 seconds of the limit
    assert len(errors) == 3
    with pytest.raises(TemplateRendererError, match="closed"):
        renderer.render_blocking("a", {})
    renderer.close()
    gc.collect()
    assert workers() == []
    assert open_files() <= open_before  # what earlier tests left may have gone meanwhile


@pytest.mark.fault
@pytest.mark.parametrize("source", ["{{ 1 }}", HOSTILE[0][0]], ids=["resting", "rendering"])
def test_a_worker_ends_when_its_parent_is_killed(source):
    program = textwrap.dedent(
        """
        import sys, threading, time
        from tidemill_models.template_process import TemplateLimits
        from tidemill_models.template_renderer import TemplateRenderer
        renderer = TemplateRenderer(TemplateLimits(seconds=60), num_processes=1)
        renderer.render_blocking("warm", {})
        print("ready", flush=True)
        threading.Thread(target=renderer.render_blocking, args=(sys.argv[1], {}), daemon=True).start()
        time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, source], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (worker,) = workers(parent.pid)
        idle_ticks = num_cpu_ticks(worker)
        if source == HOSTILE[0][0]:
            assert wait_until(lambda: num_cpu_ticks(worker) > idle_ticks + 10, seconds=60)
        parent.kill()
    assert wait_until(lambda: not is_alive(worker), seconds=60)


def wait_until(holds, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
