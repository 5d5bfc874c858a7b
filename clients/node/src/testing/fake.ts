/** Answers from a table, without a server. */

import type { Answer, Reason } from '../answer.js'
import type { CallOptions, CheckOptions } from '../consistency.js'
import { consistencyOf } from '../consistency.js'
import { PermcachedError } from '../errors.js'
import type { Explanation } from '../explanation.js'
import type { Id } from '../id.js'
import type { ListOptions, Plan, PlanOptions, ResourcePage, SubjectPage, WhoOptions } from '../lists.js'
import { permissionsPlugin, type PluginOptions } from '../mongoose/plugin.js'
import type { CheckResult, Invalidated, Outdated, Permissions } from '../permissions.js'
import { asked, askedQuestion, type Asked, type Question, type Subject } from '../question.js'
import type { Changes, WatchOptions } from '../watch.js'

/** The permissions that a subject has on a resource: their names, or for each name true, the reason of a denial, or the error in place of an answer. */
export type FakeAnswers = readonly string[] | Readonly<Record<string, true | Reason | Error>>

/**
 * For each subject, the permissions on each resource. A subject is the id of a user, or `type:id` for another type, or
 * `anonymous`; a resource is `type:id`. `*` stands for every subject, every id of a type (`file:*`), or every permission.
 * It denies whatever the table does not contain, with NO_GRANT.
 */
export type FakeTable = Readonly<Record<string, Readonly<Record<string, FakeAnswers>>>>

const DENIED: Reason = 'NO_GRANT'

/** Permissions that answer from a table. */
export class FakePermissions implements Permissions {
  #table: FakeTable
  readonly defaultSubject = ''
  /** Every question that was asked, as `subject permission resource`. */
  readonly asked: string[] = []
  /** Everything that was invalidated. */
  readonly invalidated: Outdated[] = []

  constructor(table: FakeTable) {
    this.#table = table
  }

  /** Replaces the table. */
  answer(table: FakeTable): void {
    this.#table = table
  }

  async can(subject: Subject, permission: string, type: string, id: Id, options?: CheckOptions): Promise<boolean> {
    return this.#answer(asked(subject, permission, type, id, ''), options).allowed
  }

  async check(question: Question, options?: CheckOptions): Promise<Answer> {
    return this.#answer(askedQuestion(question, ''), options)
  }

  async checkAll(questions: readonly Question[], options?: CheckOptions): Promise<CheckResult[]> {
    return questions.map((question) => {
      const parts = askedQuestion(question, '')
      try {
        return this.#answer(parts, options)
      } catch (error) {
        if (error instanceof PermcachedError) return { error }
        throw error
      }
    })
  }

  async filterAllowed<T>(
    subject: Subject,
    permission: string,
    type: string,
    items: Iterable<T>,
    id: (item: T) => Id = (item) => (item as { _id: Id })._id,
    options?: CheckOptions,
  ): Promise<T[]> {
    return [...items].filter((item) => this.#answer(asked(subject, permission, type, id(item), ''), options).allowed)
  }

  /** A query for the ids of the table. An id of 24 hex digits is an ObjectId in it. */
  async plan(subject: Subject, permission: string, type: string, options: PlanOptions = {}): Promise<Plan> {
    const question = asked(subject, permission, type, '', '')
    const ids = this.#ids(type).filter((resourceId) => this.#answer({ ...question, resourceId }, undefined).allowed)
    const value = (id: string) => (/^[0-9a-f]{24}$/i.test(id) ? { $oid: id } : id)
    const filter = { [options.referenceField ?? '_id']: { $in: ids.map(value) } }
    const kind = ids.length === 0 ? 'NONE' : 'EXACT'
    return { kind, filter: JSON.stringify(filter), now: new Date(), asOf: 'fake', ageMs: 0, ids: ids.length, notes: [] }
  }

  /** The resources of the table, in one page. */
  async list(subject: Subject, permission: string, type: string, _options?: ListOptions): Promise<ResourcePage> {
    const question = asked(subject, permission, type, '', '')
    const all = this.#ids(type)
    const resources = all.filter((resourceId) => this.#answer({ ...question, resourceId }, undefined).allowed).map((id) => ({ id }))
    return { resources, asOf: 'fake', ageMs: 0, examined: all.length }
  }

  /** The subjects of the table, in one page. */
  async who(permission: string, type: string, id: Id, options: WhoOptions = {}): Promise<SubjectPage> {
    const prefix = options.subjectType === undefined ? '' : `${options.subjectType}:`
    const names = Object.keys(this.#table).filter(
      (name) => !['*', 'anonymous'].includes(name) && (prefix === '' ? !name.includes(':') : name.startsWith(prefix)),
    )
    const subjects = names.map((name) => name.slice(prefix.length)).sort()
    const allowed = (subjectId: string) =>
      this.#answer({ ...asked(subjectId, permission, type, id, ''), subjectType: options.subjectType ?? '' }, undefined).allowed
    const everybody = this.#table['*'] === undefined ? 'NO' : 'WITH_EXCLUSIONS'
    return { subjects: subjects.filter(allowed).map((each) => ({ id: each })), everybody, sets: [], asOf: 'fake', ageMs: 0 }
  }

  /** The ids of a type that the table names. */
  #ids(type: string): string[] {
    const names = Object.values(this.#table).flatMap((row) => Object.keys(row))
    const ids = names.filter((name) => name.startsWith(`${type}:`)).map((name) => name.slice(type.length + 1))
    return [...new Set(ids)].filter((id) => id !== '*').sort()
  }

  async permissionsOf(subject: Subject, type: string, id: Id, options?: CheckOptions): Promise<Record<string, Answer>> {
    const question = asked(subject, '', type, id, '')
    const names = new Set(this.#cells(question).flatMap((cell) => (isList(cell) ? cell : Object.keys(cell))))
    names.delete('*')
    return Object.fromEntries([...names].map((permission) => [permission, this.#answer({ ...question, permission }, options)]))
  }

  async explain(question: Question, options?: CheckOptions): Promise<Explanation> {
    return { answer: await this.check(question, options), steps: [], truncated: false }
  }

  async invalidate(outdated: Outdated, _options?: CallOptions): Promise<Invalidated> {
    this.invalidated.push(outdated)
    return { token: 'fake', published: false }
  }

  /** Reports nothing, and ends when the signal is aborted. */
  async *watch({ signal }: WatchOptions = {}): AsyncGenerator<Changes, void, undefined> {
    if (signal?.aborted) return
    await new Promise((resolve) => signal?.addEventListener('abort', resolve, { once: true }))
  }

  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  mongoose(options: PluginOptions): (schema: any) => void {
    return permissionsPlugin(this, options)
  }

  async ready(): Promise<void> {}

  async close(): Promise<void> {}

  /** The parts of the table that apply to a question, the most exact first. */
  #cells(question: Asked): FakeAnswers[] {
    const { subjectType, subjectId, resourceType, resourceId } = question
    const subject = question.anonymous ? 'anonymous' : subjectType === '' ? subjectId : `${subjectType}:${subjectId}`
    const rows = [this.#table[subject], this.#table['*']]
    return rows.flatMap((row) => [row?.[`${resourceType}:${resourceId}`], row?.[`${resourceType}:*`]]).filter((cell) => cell !== undefined)
  }

  #answer(question: Asked, options: CheckOptions | undefined): Answer {
    consistencyOf(options)
    options?.signal?.throwIfAborted()
    const { subjectType, subjectId, permission, resourceType, resourceId } = question
    const subject = question.anonymous ? 'anonymous' : subjectType === '' ? subjectId : `${subjectType}:${subjectId}`
    this.asked.push(`${subject} ${permission} ${resourceType}:${resourceId}`)
    for (const cell of this.#cells(question)) {
      const found = isList(cell) ? cell.includes(permission) || cell.includes('*') || undefined : (cell[permission] ?? cell['*'])
      if (found instanceof Error) throw found
      if (found !== undefined) return found === true ? answer(true) : answer(false, found)
    }
    return answer(false, DENIED)
  }
}

function isList(cell: FakeAnswers): cell is readonly string[] {
  return Array.isArray(cell)
}

function answer(allowed: boolean, reason?: Reason): Answer {
  return { allowed, ...(reason === undefined ? {} : { reason }), tier: 'MEMORY', asOf: 'fake', ageMs: 0, stale: false }
}

/** Permissions that answer from a table, for tests without a server. */
export function fakePermissions(table: FakeTable = {}): FakePermissions {
  return new FakePermissions(table)
}
