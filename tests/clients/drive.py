"""Calls the Python code of docs/clients.md and docs/lists.md: reads one question per line from stdin, and writes one answer per line to stdout.
`scripts/test-clients` writes the questions and checks the answers."""

import json
import sys

import grpc
from bson import ObjectId
from lists import files_page, find_files, readers
from permcached.v1 import core_pb2, permission_service_pb2 as api
from permissions import check, http_status, question, readable
from sharing import shares, since, unshare

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
        case "find":
            moment = command.get("since")
            consistency = since(core_pb2.Moment(**moment)) if moment else None
            found = find_files(shares.database.files, command["user"], command["own"], consistency)
            return {"names": [file["name"] for file in found]}
        case "page":
            ids, token = files_page(command["user"], command["token"], command["size"], command["within"])
            return {"ids": ids, "next": token}
        case "readers":
            found = readers(command["file"])
            everybody = api.ListSubjectsResponse.Everybody.Name(found.everybody)
            ids = [subject.id for subject in found.subjects]
            return {"ids": ids, "everybody": everybody, "sets": list(found.sets), "next": found.next_page_token}
        case "unshare":
            moment = unshare(ObjectId(command["share"]))
            return {"seconds": moment.seconds, "increment": moment.increment}


for line in sys.stdin:
    try:
        answer = perform(json.loads(line))
    except grpc.RpcError as error:
        answer = {"error": error.code().name}
    print(json.dumps(answer), flush=True)
