"""Runs llm-comply's tests of one format, a JSON line for each: a process of its own, so that it can be ended.

python -m corral.compare.probes.comply_worker FORMAT URL MODEL < key
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REQUEST_S = 60.0
SPECS = {"openai-chat": "openai_chat.json", "open-responses": "openresponses.json", "anthropic": "anthropic.json"}
_SEES = "image"  # tests of pictures, which a model of text alone cannot answer


def main(argv: list[str]) -> int:
    """0 when all of them ran, whatever came of them; 3 where llm-comply is not installed."""
    try:
        import llm_comply
        from llm_comply.config import ComplianceConfig
        from llm_comply.runner import TestRunner
        from llm_comply.schema import SpecLoader
        from llm_comply.tests import get_tests
    except ImportError:
        return 3
    form, url, model = argv
    key = sys.stdin.readline().strip()
    is_anthropic = form == "anthropic"
    config = ComplianceConfig(
        base_url=url,
        api_key=key or "none",
        model=model,
        timeout=REQUEST_S,
        auth_header="x-api-key" if is_anthropic else "Authorization",
        use_bearer_prefix=not is_anthropic,
        extra_headers={"anthropic-version": "2023-06-01"} if is_anthropic else None,
    )
    specs = Path(str(llm_comply.__file__)).parent / "specs"
    cases = [case for case in get_tests(form) if _SEES not in case.id]
    _say({"version": llm_comply.__version__, "planned": [case.id for case in cases]})
    runner = TestRunner(config, cases, SpecLoader(str(specs / SPECS[form])))
    for case in cases:
        result = runner.run_one(case)
        _say({"id": result.id, "status": result.status.value, "errors": result.errors[:2]})
    return 0


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
