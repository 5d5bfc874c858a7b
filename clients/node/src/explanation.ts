/** Explanations: the steps of an evaluation, as JavaScript objects. */

import { answerOf, reasonOf, tierOf, type Answer, type Reason, type Tier } from './answer.js'
import {
  Explanation_Outcome,
  Explanation_Step,
  type Explanation as StepMessage,
  type Explanation_Fact,
  type Explanation_Grant,
  type ExplainResponse,
} from './gen/permcached/v1/permission_service_pb.js'
import { dateOf } from './time.js'

/** An answer, and how it was reached. */
export interface Explanation {
  readonly answer: Answer
  /** The evaluation, from the question down. Each step is followed by its parts, which are one deeper. */
  readonly steps: readonly Step[]
  /** Whether there were more steps. */
  readonly truncated: boolean
}

/** The kinds of steps. */
export type StepKind = 'QUESTION' | 'GATE' | 'DOCUMENT' | 'PERMISSION' | 'RELATION' | 'EDGE' | 'NOT' | 'ALL' | 'ANY' | 'UNKNOWN'

/** The outcomes of a step. */
export type StepOutcome = 'HOLDS' | 'FAILS' | 'INDETERMINATE' | 'UNKNOWN'

/** One step of an evaluation. `proto/permcached/v1/permission_service.proto` of the project describes each field. */
export interface Step {
  readonly step: StepKind
  readonly depth: number
  readonly object: string
  readonly name: string
  readonly outcome: StepOutcome
  readonly reason?: Reason
  readonly validUntil?: Date
  readonly fact?: StepFact
  readonly grants: readonly Grant[]
  readonly grantsTotal: number
  readonly leadsTo: readonly string[]
}

/** What a lookup found for one key. */
export interface StepFact {
  readonly collection: string
  readonly field: string
  readonly key: string
  readonly documents: readonly string[]
  readonly documentsTotal: number
  readonly overLimit: boolean
  readonly tier: Tier
  readonly stamp: string
  readonly condition: string
}

/** A grant in one document. */
export interface Grant {
  readonly document: string
  readonly field: string
  readonly grantee: string
  readonly since?: Date
  readonly until?: Date
  readonly doubtful: boolean
  readonly outcome: StepOutcome
  readonly reason?: Reason
}

/** The explanation that a response contains, or undefined if it has no answer. */
export function explanationOf(response: ExplainResponse): Explanation | undefined {
  if (response.answer === undefined) return undefined
  return { answer: answerOf(response.answer), steps: response.steps.map(stepOf), truncated: response.truncated }
}

function stepOf(message: StepMessage): Step {
  const reason = reasonOf(message.reason)
  return {
    step: nameOf(Explanation_Step, message.step) as StepKind,
    depth: message.depth,
    object: message.object,
    name: message.name,
    outcome: nameOf(Explanation_Outcome, message.outcome) as StepOutcome,
    ...(reason === undefined ? {} : { reason }),
    ...(message.validUntil === undefined ? {} : { validUntil: dateOf(message.validUntil) }),
    ...(message.fact === undefined ? {} : { fact: factOf(message.fact) }),
    grants: message.grants.map(grantOf),
    grantsTotal: message.grantsTotal,
    leadsTo: message.leadsTo,
  }
}

function factOf(fact: Explanation_Fact): StepFact {
  const { collection, field, key, documents, documentsTotal, overLimit, stamp, condition } = fact
  return { collection, field, key, documents, documentsTotal, overLimit, tier: tierOf(fact.tier), stamp, condition }
}

function grantOf(grant: Explanation_Grant): Grant {
  const reason = reasonOf(grant.reason)
  return {
    document: grant.document,
    field: grant.field,
    grantee: grant.grantee,
    ...(grant.since === undefined ? {} : { since: dateOf(grant.since) }),
    ...(grant.until === undefined ? {} : { until: dateOf(grant.until) }),
    doubtful: grant.doubtful,
    outcome: nameOf(Explanation_Outcome, grant.outcome) as StepOutcome,
    ...(reason === undefined ? {} : { reason }),
  }
}

/** The name of a number of an enum. A number that is not in it, or that is never sent, is `UNKNOWN`. */
function nameOf(names: Record<number, string>, number: number): string {
  return number === 0 ? 'UNKNOWN' : (names[number] ?? 'UNKNOWN')
}
