"""Calls the Python code of docs/clients.md: reads one question per line from stdin, and writes one answer per line to stdout.
`scripts/test-clients` writes the questions and checks the answers."""

import json
import sys

import grpc
from bson import ObjectId
from permcached.v1 import core_pb2
from permissions import check, http_status, question, readable
from sharing import since, unshare

CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def may_read(command):
    return question(command["user"], "read", "file", command["file"])


def perform(command):
    match command["do"]:
        case "check":
            moment = command.get("since")
            answer = check(may_read(command), since(core_pb2.Moment(**moment)) if moment else None)
            reason = core_pb2.Reason.Name(answer.reason)
            return {"allowed": answer.allowed, "reason": reason, "granted_by": answer.granted_by}
        case "status":
            return {"status": http_status(may_read(command))}
        case "readable":
            allowed, unanswered = readable(command["user"], command["files"])
            return {"allowed": allowed, "unanswered": {id: CODES[error.code] for id, error in unanswered.items()}}
        case "unshare":
            moment = unshare(ObjectId(command["share"]))
            return {"seconds": moment.seconds, "increment": moment.increment}


for line in sys.stdin:
    try:
        answer = perform(json.loads(line))
    except grpc.RpcError as error:
        answer = {"error": error.code().name}
    print(json.dumps(answer), flush=True)
