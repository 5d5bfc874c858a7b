/** The calls that carry questions, and the parts of their messages. */

import type { MessageInitShape } from '@bufbuild/protobuf'
import { decodeBatch, decodeCheck, encodeBatch, encodeCheck, type Outcome } from './codec.js'
import { pathOf, type Connection, type Limits } from './connection.js'
import type { Consistency } from './consistency.js'
import type { ConsistencySchema } from './gen/permcached/v1/core_pb.js'
import { PermissionService } from './gen/permcached/v1/permission_service_pb.js'
import type { Asked } from './question.js'

/** The fields of a question. */
export interface QuestionFields {
  readonly subject: { anonymous: true } | { type: string; id: string }
  readonly permission: string
  readonly resource: { type: string; id: string }
}

/** The fields of a question. */
export function questionMessage(question: Asked): QuestionFields {
  return {
    subject: question.anonymous ? { anonymous: true } : { type: question.subjectType, id: question.subjectId },
    permission: question.permission,
    resource: { type: question.resourceType, id: question.resourceId },
  }
}

const CHECK = pathOf(PermissionService.method.check)
const BATCH_CHECK = pathOf(PermissionService.method.batchCheck)

/** Asks one question, and for what the answer depends on. */
export function ask(
  connection: Connection,
  question: Asked,
  consistency: Consistency,
  dependencies: boolean,
  limits: Limits,
): Promise<Outcome> {
  return connection.callBytes(CHECK, encodeCheck(question, consistency, dependencies), decodeCheck, limits)
}

/** Asks several questions, and for what each answer depends on. */
export function askAll(
  connection: Connection,
  questions: readonly Asked[],
  consistency: Consistency,
  dependencies: boolean,
  limits: Limits,
): Promise<Outcome[]> {
  return connection.callBytes(BATCH_CHECK, encodeBatch(questions, consistency, dependencies), decodeBatch, limits)
}

/** The field `consistency` of a request, if it is not the default. */
export function asks(consistency: Consistency): { consistency?: MessageInitShape<typeof ConsistencySchema> } {
  return consistency.message === undefined ? {} : { consistency: consistency.message }
}
