/** The calls that carry questions, as messages. */

import { create, type MessageInitShape } from '@bufbuild/protobuf'
import type { Connection, Limits } from './connection.js'
import type { Consistency } from './consistency.js'
import type { Answer, ConsistencySchema } from './gen/permcached/v1/core_pb.js'
import type { Status } from './gen/google/rpc/status_pb.js'
import { BatchCheckRequestSchema, CheckRequestSchema, PermissionService } from './gen/permcached/v1/permission_service_pb.js'
import type { Asked } from './question.js'

/** What became of one question. */
export type Outcome = { case: 'answer'; value: Answer } | { case: 'error'; value: Status } | { case: undefined; value?: undefined }

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

/** Asks one question. */
export async function ask(connection: Connection, question: Asked, consistency: Consistency, limits: Limits): Promise<Outcome> {
  const request = create(CheckRequestSchema, { ...questionMessage(question), ...asks(consistency) })
  const { answer } = await connection.call(PermissionService.method.check, request, limits)
  return answer === undefined ? { case: undefined } : { case: 'answer', value: answer }
}

/** Asks several questions. */
export async function askAll(
  connection: Connection,
  questions: readonly Asked[],
  consistency: Consistency,
  limits: Limits,
): Promise<Outcome[]> {
  const request = create(BatchCheckRequestSchema, { questions: questions.map(questionMessage), ...asks(consistency) })
  const { results } = await connection.call(PermissionService.method.batchCheck, request, limits)
  return results.map(({ outcome }) => outcome)
}

/** The field `consistency` of a request, if it is not the default. */
export function asks(consistency: Consistency): { consistency?: MessageInitShape<typeof ConsistencySchema> } {
  return consistency.message === undefined ? {} : { consistency: consistency.message }
}
