/**
 * Lists: which resources a subject may …, as a query or page by page, and which subjects may … a resource.
 *
 * docs/lists.md of the project describes when to use which.
 */

import { create } from '@bufbuild/protobuf'
import { consistencyOf, type CheckOptions } from './consistency.js'
import { extended, refuseLost } from './extended.js'
import {
  ListResourcesRequestSchema,
  ListSubjectsRequestSchema,
  ListSubjectsResponse_Everybody,
  PlanFilterRequestSchema,
  PlanFilterResponse_Kind,
  PlanFilterResponse_Note_Code,
  type ListResourcesRequest,
  type ListResourcesResponse,
  type ListSubjectsRequest,
  type ListSubjectsResponse,
  type PlanFilterRequest,
  type PlanFilterResponse,
} from './gen/permcached/v1/permission_service_pb.js'
import { asks, questionMessage } from './messages.js'
import type { Asked } from './question.js'
import { dateOf, durationMs } from './time.js'

/** How fresh the ids in a plan have to be, and how many there may be. */
export interface PlanOptions extends CheckOptions {
  /** The most ids that the query may have, 1 to 10,000. 1,000 if left out. Beyond it, the call is rejected with TooLarge. */
  maxIds?: number | undefined
  /** For a query on another collection: its field that names the resource, such as `file_id` of comments. */
  referenceField?: string | undefined
}

/**
 * What a plan's query finds: nothing (`NONE`); exactly what a check allows (`EXACT`); at least that, so check what it finds
 * (`SUPERSET`); or every document is allowed (`ALL`).
 */
export type PlanKind = 'NONE' | 'EXACT' | 'SUPERSET' | 'ALL'

/** A MongoDB query that finds the resources on which a subject has a permission. */
export interface Plan {
  readonly kind: PlanKind
  /**
   * The query, as Extended JSON: `EJSON.parse(filter, { relaxed: false })`. Combine it with your own as `{ $and: [filter, own] }` when
   * the query runs. For a link, it contains the link's token: keep it out of logs.
   */
  readonly filter: string
  /** The time with which the query compares dates. */
  readonly now: Date
  /** If time alone will make the query wrong: when. Do not use it beyond. */
  readonly validUntil?: Date
  readonly asOf: string
  readonly ageMs: number
  /** How many ids of resources the query has. */
  readonly ids: number
  readonly notes: readonly PlanNote[]
}

/** A remark about a plan: why it finds nothing, or why the query may be slow. */
export interface PlanNote {
  readonly code: 'SUBJECT_INACTIVE' | 'MANY_VALUES' | 'UNKNOWN'
  readonly message: string
  /** For MANY_VALUES: the part of the permission, and how many ids it has. */
  readonly branch?: string
  readonly count?: number
}

/** Which page of a list. */
export interface PageOptions extends CheckOptions {
  /** The most entries on this page, 1 to 1,000. 100 if left out. */
  pageSize?: number | undefined
  /** The `nextPageToken` of the page before, for the same question. */
  pageToken?: string | undefined
}

/** Which resources to list. */
export interface ListOptions extends PageOptions {
  /** Your own condition on the resource's document: a query, with ObjectIds and dates, or its Extended JSON. */
  within?: object | string | undefined
}

/** Which subjects to list. */
export interface WhoOptions extends PageOptions {
  /** The type of the subjects. The default type if left out. */
  subjectType?: string | undefined
}

/** An entry of a list. */
export interface Listed {
  readonly id: string
  readonly grantedBy?: string
  /** If time alone will end the permission: when. */
  readonly validUntil?: Date
}

/** A page of resources. */
export interface ResourcePage {
  /** The resources, in the order of their ids. */
  readonly resources: readonly Listed[]
  /** The token of the next page. Undefined on the last page; a page without resources may have one. */
  readonly nextPageToken?: string
  readonly asOf: string
  readonly ageMs: number
  /** How many resources were checked for this page. */
  readonly examined: number
}

/** A page of subjects. */
export interface SubjectPage {
  /** The subjects, in the order of their ids. */
  readonly subjects: readonly Listed[]
  /** Whether others have the permission who are in no set: no, every active subject of the type, or maybe some. Check each. */
  readonly everybody: 'NO' | 'YES' | 'WITH_EXCLUSIONS'
  /** Sets with too many members to be listed here, as `team:1#member`. Some members may not have the permission: check each. */
  readonly sets: readonly string[]
  readonly nextPageToken?: string
  readonly asOf: string
  readonly ageMs: number
}

/** The options of lists apart from those of every check. Throws a TypeError for an option that the call does not have. */
function split<Names extends string>(
  options: object | undefined,
  names: readonly Names[],
): { own: Partial<Record<Names, unknown>>; rest: CheckOptions } {
  const own: Partial<Record<string, unknown>> = {}
  const rest: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(options ?? {})) (names.includes(name as Names) ? own : rest)[name] = value
  return { own: own as Partial<Record<Names, unknown>>, rest: rest as CheckOptions }
}

function count(value: unknown, name: string, max: number): number {
  if (value === undefined) return 0
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  throw new TypeError(`${name} must be an integer from 1 to ${max}`)
}

function text(value: unknown, name: string): string {
  if (value === undefined) return ''
  if (typeof value === 'string') return value
  throw new TypeError(`${name} must be a string`)
}

/** The request for a plan. The resource's id of the question is not used. */
export function planRequest(question: Asked, options: PlanOptions | undefined): { request: PlanFilterRequest; call: CheckOptions } {
  const { own, rest } = split(options, ['maxIds', 'referenceField'])
  const request = create(PlanFilterRequestSchema, {
    subject: questionMessage(question).subject,
    permission: question.permission,
    resourceType: question.resourceType,
    maxIds: count(own.maxIds, 'maxIds', 10_000),
    referenceField: text(own.referenceField, 'referenceField'),
    ...asks(consistencyOf(rest)),
  })
  return { request, call: rest }
}

/** The plan that a response contains, or undefined if it has none. */
export function planOf(response: PlanFilterResponse): Plan | undefined {
  // A query of a kind that this package does not know finds too much at worst. An empty text would find everything.
  const kind = (PlanFilterResponse_Kind[response.kind] as PlanKind | undefined) ?? 'SUPERSET'
  if (response.kind === PlanFilterResponse_Kind.KIND_UNSPECIFIED || response.filter === '' || response.now === undefined) return undefined
  return {
    kind,
    filter: response.filter,
    now: dateOf(response.now),
    ...(response.validUntil === undefined ? {} : { validUntil: dateOf(response.validUntil) }),
    asOf: response.asOf,
    ageMs: durationMs(response.age),
    ids: response.ids,
    notes: response.notes.map((note) => ({
      code: note.code === 0 ? 'UNKNOWN' : ((PlanFilterResponse_Note_Code[note.code] as PlanNote['code'] | undefined) ?? 'UNKNOWN'),
      message: note.message,
      ...(note.branch === '' ? {} : { branch: note.branch, count: note.count }),
    })),
  }
}

const PAGE_MAX = 1_000

/** The request for a page of resources. */
export function listRequest(question: Asked, options: ListOptions | undefined): { request: ListResourcesRequest; call: CheckOptions } {
  const { own, rest } = split(options, ['pageSize', 'pageToken', 'within'])
  const { within } = own
  if (within !== undefined) refuseLost(within, 'within')
  const request = create(ListResourcesRequestSchema, {
    subject: questionMessage(question).subject,
    permission: question.permission,
    resourceType: question.resourceType,
    pageSize: count(own.pageSize, 'pageSize', PAGE_MAX),
    pageToken: text(own.pageToken, 'pageToken'),
    within: typeof within === 'object' && within !== null ? JSON.stringify(extended(within)) : text(within, 'within'),
    ...asks(consistencyOf(rest)),
  })
  return { request, call: rest }
}

function listed({
  id,
  grantedBy,
  validUntil,
}: ListResourcesResponse['resources'][number] | ListSubjectsResponse['subjects'][number]): Listed {
  return { id, ...(grantedBy === '' ? {} : { grantedBy }), ...(validUntil === undefined ? {} : { validUntil: dateOf(validUntil) }) }
}

/** The page of resources that a response contains. */
export function resourcePage(response: ListResourcesResponse): ResourcePage {
  return {
    resources: response.resources.map(listed),
    ...(response.nextPageToken === '' ? {} : { nextPageToken: response.nextPageToken }),
    asOf: response.asOf,
    ageMs: durationMs(response.age),
    examined: Number(response.examined),
  }
}

/** The request for a page of subjects. */
export function whoRequest(
  permission: string,
  resource: { type: string; id: string },
  subjectType: string,
  options: WhoOptions | undefined,
): { request: ListSubjectsRequest; call: CheckOptions } {
  const { own, rest } = split(options, ['pageSize', 'pageToken', 'subjectType'] as const)
  const request = create(ListSubjectsRequestSchema, {
    permission,
    resource,
    subjectType: text(own.subjectType, 'subjectType') || subjectType,
    pageSize: count(own.pageSize, 'pageSize', PAGE_MAX),
    pageToken: text(own.pageToken, 'pageToken'),
    ...asks(consistencyOf(rest)),
  })
  return { request, call: rest }
}

/** The page of subjects that a response contains. */
export function subjectPage(response: ListSubjectsResponse): SubjectPage {
  const { everybody } = response
  return {
    subjects: response.subjects.map(listed),
    // What is not known may be everybody, with exclusions.
    everybody:
      everybody === ListSubjectsResponse_Everybody.NO ? 'NO' : everybody === ListSubjectsResponse_Everybody.YES ? 'YES' : 'WITH_EXCLUSIONS',
    sets: response.sets,
    ...(response.nextPageToken === '' ? {} : { nextPageToken: response.nextPageToken }),
    asOf: response.asOf,
    ageMs: durationMs(response.age),
  }
}
