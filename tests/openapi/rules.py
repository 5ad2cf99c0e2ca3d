"""What OpenAPI 3.1 cannot say of a request, for Schemathesis: parameters that exclude each other, or need one another.

A request that is meant to be valid is changed until these rules hold; one that is meant to be invalid is left as it is.
"""

import datetime
import json
import re

import schemathesis
from hypothesis import strategies
from schemathesis.openapi.checks import MissingContentType

SOON = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
LATER = SOON + datetime.timedelta(days=3_000)
FORM = "%Y-%m-%dT%H:%M:%SZ"

# The only times that requests speak of are expiries, which lie ahead.
TIMES = strategies.datetimes(SOON.replace(tzinfo=None), LATER.replace(tzinfo=None))
schemathesis.openapi.format("date-time", TIMES.map(lambda time: time.strftime(FORM)))


def on(value):
    """Whether a switch of a query is on."""
    return value in (True, "true")


def keep_first(query, names):
    """Of parameters that exclude each other, leaves the first."""
    found = [name for name in names if name in query]
    for name in found[1:]:
        del query[name]


def mend_range(query, deletes):
    """One of prefix, start and end, key, or all; a delete of everything only with `all`."""
    if not on(query.get("all")):
        query.pop("all", None)
    if "start" in query and "end" in query and not str(query["start"]) <= str(query["end"]):
        query["start"], query["end"] = query["end"], query["start"]
    if deletes:
        for name in ["prefix", "start", "end"]:
            if query.get(name) == "":
                del query[name]
    kinds = [["prefix"], ["start", "end"], ["key"], ["all"]]
    there = [names for names in kinds if any(name in query for name in names)]
    for names in there[1:]:
        for name in names:
            query.pop(name, None)
    if not there:
        query["all"] = "true"


def mend_time(fields):
    """Schemathesis also tries values that it was told, such as times of the past."""
    if str(fields.get("expire_time", "9")) < SOON.isoformat():
        fields["expire_time"] = LATER.strftime(FORM)


def mend_expiry(query, needed):
    mend_time(query)
    if not on(query.get("keep_ttl")):
        query.pop("keep_ttl", None)
    keep_first(query, ["ttl", "expire_time", "keep_ttl"])
    if needed and not {"ttl", "expire_time", "keep_ttl"} & set(query):
        query["ttl"] = "1h"


def mend_tags(headers, writes):
    """Schemathesis draws entity tags by itself, and some are none."""
    for name in list(headers):
        tag = r'(W/)?"[!#-+\--~]*"'
        if name.lower() == "if-match":
            form = tag if writes else rf"{tag}( *, *{tag})*"
        elif name.lower() == "if-none-match":
            form = r"\*" if writes else rf"{tag}( *, *{tag})*"
        else:
            continue
        if not re.fullmatch(rf"\*|{form}", str(headers[name])):
            headers[name] = "*"


def mend_conditions(query, headers):
    """Not both present and absent."""
    present = [name for name in headers if name.lower() == "if-match"]
    absent = [name for name in headers if name.lower() == "if-none-match"]
    if absent and present:
        del headers[absent[0]]
        absent = []
    if "if_version" in query and (absent or present):
        del query["if_version"]


def mend_body(body):
    """Each key once in a branch, and conditions of one kind."""
    for branch in ["writes", "then", "otherwise", "guards"]:
        seen, kept = set(), []
        for item in body.get(branch, []):
            operation = item if branch == "guards" else next(iter(item.values()))
            mend_time(operation.get("expiry") or {})
            if "conditions" in operation:
                del operation["conditions"][1:]
            key = json.dumps(operation.get("key") or operation.get("key_base64"))
            if key not in seen:
                kept.append(item)
            seen.add(key)
        if branch in body:
            body[branch] = kept


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    operation = case.operation.definition.raw["operationId"].removesuffix("Head")
    query = case.query if case.query is not None else {}
    if operation in ("list", "count", "deleteRange"):
        mend_range(query, operation == "deleteRange")
    if operation in ("put", "touch", "increment"):
        mend_expiry(query, operation == "touch")
    headers = case.headers if case.headers is not None else {}
    writes = operation in ("put", "touch", "increment", "delete")
    mend_tags(headers, writes)
    if writes:
        mend_conditions(query, headers)
    # Tokens are what the server gave out.
    query.pop("page_token", None)
    if "wait" in query:
        query["wait"] = "1ms"
    case.query = query
    if isinstance(case.body, dict):
        mend_body(case.body)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """An answer without content has no type: a put that is not asked for what it replaced."""
    return not (isinstance(failure, MissingContentType) and not response.content)
