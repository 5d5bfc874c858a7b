/**
 * The client.
 *
 * Keeps no answers itself: the near cache does, if there is one.
 */

import { status as Code } from '@grpc/grpc-js'
import { create, type DescMessage, type DescMethodUnary, type MessageShape } from '@bufbuild/protobuf'
import { answerOf, type Answer } from './answer.js'
import { Coalescer, type Keeper, type Wait } from './coalesce.js'
import type { DependsOn } from './codec.js'
import { CallFailed, Connection, type Limits, type TlsOptions } from './connection.js'
import { consistencyOf, deadlineMsOf, type CallOptions, type CheckOptions, type Consistency } from './consistency.js'
import { InvalidQuestion, NoAnswer, PermcachedError } from './errors.js'
import { explanationOf, type Explanation } from './explanation.js'
import { errorOf } from './failure.js'
import { Following } from './following.js'
import {
  BatchCheckRequestSchema,
  ExplainRequestSchema,
  ListPermissionsRequestSchema,
  PermissionService,
} from './gen/permcached/v1/permission_service_pb.js'
import { InvalidateRequestSchema, InvalidationService } from './gen/permcached/v1/invalidation_service_pb.js'
import { idText, type Id } from './id.js'
import {
  listRequest,
  planOf,
  planRequest,
  resourcePage,
  subjectPage,
  whoRequest,
  type ListOptions,
  type Plan,
  type PlanOptions,
  type ResourcePage,
  type SubjectPage,
  type WhoOptions,
} from './lists.js'
import { asks, questionMessage } from './messages.js'
import { Near } from './near.js'
import { permissionsPlugin, type PluginOptions } from './mongoose/plugin.js'
import type { CheckResult, Invalidated, Outdated, Permissions } from './permissions.js'
import { asked, askedQuestion, askedSubject, flaws, keyOf, questionText, type Asked, type Question, type Subject } from './question.js'
import { Clock } from './time.js'
import { watch, type Changes, type WatchOptions } from './watch.js'

/** How to connect, and what to assume. */
export interface PermcachedOptions {
  /** The server: `host:port`, `dns:///host:port`, `http://host:port` or, for TLS, `https://host:port`. Every address of the name is used. */
  target: string
  /** One secret of the server's AUTH_TOKENS, without the name before it. */
  token?: string | undefined
  /** How long a call may take, in milliseconds, with all waiting and retries. 250 if left out. */
  deadlineMs?: number | undefined
  /** The type of subjects that are given as a plain id. The schema's `default_subject` if left out. */
  defaultSubject?: string | undefined
  /** Whether questions asked in one turn of the event loop become one call. True if left out. */
  coalesce?: boolean | undefined
  /** Whether to use TLS, or its keys. An `https://` target implies true. */
  tls?: boolean | TlsOptions | undefined
  /**
   * Keeps answers in this process, within the server's MAX_STALENESS. Requires a token of the scope `watch`. Off if left out.
   */
  near?: false | NearOptions | undefined
  /** Permits sending the token in plaintext to a public address. */
  insecure?: boolean | undefined
}

/** How many answers are kept in this process. */
export interface NearOptions {
  /**
   * The most answers. One that depends on 3 documents and keys takes 1.4 KB, on 8: 2.4 KB, on 16: 4.1 KB, on 64, which is the most: 14.4 KB.
   * Ids of 1 KiB add up to 2 KB.
   */
  maxEntries: number
}

/** How often things happened since the client was made. */
export interface Counts {
  /** Questions that were asked. */
  readonly questions: number
  /** Calls that were made for them. */
  readonly calls: number
  /** How often a call was tried again. */
  readonly retries: number
  /** Questions that an answer kept in this process has answered. */
  readonly nearHits: number
}

const DEADLINE_MS = 250

/** How long `ready` waits. */
const READY_MS = 10_000

const OPTIONS = new Set(['target', 'token', 'deadlineMs', 'defaultSubject', 'coalesce', 'near', 'tls', 'insecure'])

/** A client of permcached. One for a process is enough. */
export class Permcached implements Permissions {
  readonly #connection: Connection
  readonly #coalescer: Coalescer
  readonly #near: NearCache | undefined
  readonly #deadlineMs: number
  readonly defaultSubject: string
  #closing: Promise<void> | undefined

  constructor(options: PermcachedOptions) {
    if (typeof options !== 'object' || options === null) throw new TypeError('new Permcached({ target, … }) takes an object')
    for (const name of Object.keys(options)) {
      if (!OPTIONS.has(name)) throw new TypeError(`there is no option ${name}: the options are ${[...OPTIONS].join(', ')}`)
    }
    const { deadlineMs = DEADLINE_MS, defaultSubject = '', coalesce = true } = options
    if (typeof defaultSubject !== 'string') throw new TypeError('defaultSubject must be the name of a subject type')
    this.#deadlineMs = deadlineMsOf(deadlineMs)
    this.defaultSubject = defaultSubject
    const maxEntries = maxEntriesOf(options.near)
    this.#connection = new Connection(options)
    this.#near = maxEntries === undefined ? undefined : new NearCache(this.#connection, maxEntries)
    this.#coalescer = new Coalescer(this.#connection, defaultSubject, coalesce, this.#near)
  }

  /** How often things happened since the client was made. */
  get counts(): Counts {
    const { questions, calls } = this.#coalescer.counts
    const nearHits = this.#near?.hits ?? 0
    return { questions: questions + nearHits, calls, retries: this.#connection.retries, nearHits }
  }

  async can(subject: Subject, permission: string, type: string, id: Id, options?: CheckOptions): Promise<boolean> {
    return (await this.#ask(asked(subject, permission, type, id, this.defaultSubject), options)).allowed
  }

  async check(question: Question, options?: CheckOptions): Promise<Answer> {
    return this.#ask(askedQuestion(question, this.defaultSubject), options)
  }

  async checkAll(questions: readonly Question[], options?: CheckOptions): Promise<CheckResult[]> {
    return this.#askAll(
      questions.map((question) => askedQuestion(question, this.defaultSubject)),
      options,
    )
  }

  async filterAllowed<T>(
    subject: Subject,
    permission: string,
    type: string,
    items: Iterable<T>,
    id: (item: T) => Id = (item) => (item as { _id: Id })._id,
    options?: CheckOptions,
  ): Promise<T[]> {
    const all = [...items]
    const results = await this.#askAll(
      all.map((item) => asked(subject, permission, type, id(item), this.defaultSubject)),
      options,
    )
    const error = results.find((result) => result.error !== undefined)?.error
    if (error !== undefined) throw error
    return all.filter((_, index) => results[index]?.allowed === true)
  }

  async plan(subject: Subject, permission: string, type: string, options?: PlanOptions): Promise<Plan> {
    const question = asked(subject, permission, type, '', this.defaultSubject)
    const { request, call } = planRequest(question, options)
    const plan = planOf(await this.#call(PermissionService.method.planFilter, request, call, question))
    if (plan === undefined) throw new NoAnswer('the server sent no query', { code: 'INTERNAL' })
    return plan
  }

  async list(subject: Subject, permission: string, type: string, options?: ListOptions): Promise<ResourcePage> {
    const question = asked(subject, permission, type, '', this.defaultSubject)
    const { request, call } = listRequest(question, options)
    return resourcePage(await this.#call(PermissionService.method.listResources, request, call, question))
  }

  async who(permission: string, type: string, id: Id, options?: WhoOptions): Promise<SubjectPage> {
    const resource = { type, id: idText(id, "the resource's id") }
    const { request, call } = whoRequest(permission, resource, this.defaultSubject, options)
    return subjectPage(await this.#call(PermissionService.method.listSubjects, request, call))
  }

  async permissionsOf(subject: Subject, type: string, id: Id, options?: CheckOptions): Promise<Record<string, Answer>> {
    const question = asked(subject, '', type, id, this.defaultSubject)
    const { subject: who, resource } = questionMessage(question)
    const request = create(ListPermissionsRequestSchema, { subject: who, resource, ...asks(consistencyOf(options)) })
    const { permissions } = await this.#call(PermissionService.method.listPermissions, request, options, question)
    return Object.fromEntries(
      permissions.map(({ permission, answer }) => {
        if (answer === undefined) throw new NoAnswer('the server sent no answer', { code: 'INTERNAL' })
        return [permission, answerOf(answer)]
      }),
    )
  }

  async explain(question: Question, options?: CheckOptions): Promise<Explanation> {
    const parts = askedQuestion(question, this.defaultSubject)
    const request = create(ExplainRequestSchema, { ...questionMessage(parts), ...asks(consistencyOf(options)) })
    const explanation = explanationOf(await this.#call(PermissionService.method.explain, request, options, parts))
    if (explanation === undefined) throw new NoAnswer('the server sent no answer', { code: 'INTERNAL' })
    return explanation
  }

  async invalidate(outdated: Outdated, options?: CallOptions): Promise<Invalidated> {
    const { resources = [], documents = [], subjects = [], all = false } = outdated
    const request = create(InvalidateRequestSchema, {
      resources: resources.map(({ type, id }) => ({ type, id: idText(id, "the resource's id") })),
      documents: documents.map(({ collection, id }) => ({ collection, id: idText(id, "the document's id") })),
      subjects: subjects.map((subject) => askedSubject(subject, this.defaultSubject)),
      all,
    })
    this.#near?.invalidated()
    try {
      const { token, published } = await this.#call(InvalidationService.method.invalidate, request, options)
      return { token, published }
    } finally {
      // Also after an error: the server may have received the call.
      this.#near?.invalidated()
    }
  }

  watch(options: WatchOptions = {}): AsyncIterableIterator<Changes> {
    return watch(this.#connection, options)
  }

  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  mongoose(options: PluginOptions): (schema: any) => void {
    return permissionsPlugin(this, options)
  }

  /**
   * Connects, and makes a first call, which takes longer than later ones. Rejects if the server does not accept the token, or refuses
   * the changes that the near cache requires.
   * Waits for 10 s unless `deadlineMs` is set.
   */
  async ready(options?: CallOptions): Promise<void> {
    const limits = this.#limits({ ...options, deadlineMs: options?.deadlineMs ?? READY_MS })
    await this.#connection.ready(limits)
    try {
      // No question at all: the server rejects it, but only after it has accepted the token.
      await this.#connection.call(PermissionService.method.batchCheck, create(BatchCheckRequestSchema), limits)
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error
      if (error.failure.code !== Code.INVALID_ARGUMENT) throw errorOf(error.failure)
    }
    await this.#near?.following.ready(limits)
  }

  /** Waits until every check has its answer, and ends the connection. Later calls are rejected. */
  close(): Promise<void> {
    this.#closing ??= this.#coalescer.settled().then(() => {
      this.#near?.following.close()
      this.#connection.close()
    })
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #ask(question: Asked, options: CheckOptions | undefined): Promise<Answer> {
    this.#open()
    const consistency = consistencyOf(options)
    const wait = this.#limits(options)
    const error = this.#invalid(question)
    if (error !== undefined) return Promise.reject(error)
    const kept = this.#kept(question, consistency, wait)
    return kept === undefined ? this.#coalescer.ask(question, consistency, wait) : Promise.resolve(kept)
  }

  async #askAll(questions: readonly Asked[], options: CheckOptions | undefined): Promise<CheckResult[]> {
    this.#open()
    const consistency = consistencyOf(options)
    const wait = this.#limits(options)
    const errors = questions.map((question) => this.#invalid(question))
    const kept = questions.map((question, index) => (errors[index] === undefined ? this.#kept(question, consistency, wait) : undefined))
    const open = questions.filter((_, index) => errors[index] === undefined && kept[index] === undefined)
    const answers = await Promise.allSettled(this.#coalescer.askTogether(open, consistency, wait))
    wait.signal?.throwIfAborted()
    let next = 0
    return errors.map((error, index) => (error === undefined ? (kept[index] ?? resultOf(answers[next++])) : { error }))
  }

  /** A kept answer, if the question permits one. */
  #kept(question: Asked, consistency: Consistency, wait: Wait): Answer | undefined {
    if (this.#near === undefined || consistency.message !== undefined || wait.signal?.aborted) return undefined
    return this.#near.get(question)
  }

  /** Throws after `close`. */
  #open(): void {
    if (this.#closing !== undefined) throw new NoAnswer('the client is closed', { code: 'CANCELLED' })
  }

  /** Why a question cannot be sent, or undefined if it can. */
  #invalid(question: Asked): InvalidQuestion | undefined {
    const fields = flaws(question)
    if (fields.length === 0) return undefined
    const message = fields.map(({ field, description }) => `${field}: ${description}`).join('; ')
    return new InvalidQuestion(message, { code: 'INVALID_ARGUMENT', fields })
  }

  #limits(options: CallOptions | undefined): Limits & Wait {
    const deadlineMs = options?.deadlineMs === undefined ? this.#deadlineMs : deadlineMsOf(options.deadlineMs)
    return { deadline: Date.now() + deadlineMs, signal: options?.signal }
  }

  async #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    options: CallOptions | undefined,
    question?: Asked,
  ): Promise<MessageShape<O>> {
    try {
      return await this.#connection.call(method, request, this.#limits(options))
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error
      throw errorOf(error.failure, question && questionText(question, this.defaultSubject))
    }
  }
}

/** The near cache with what it requires: a clock, and a stream of changes. */
class NearCache implements Keeper {
  readonly #near: Near
  readonly #clock = new Clock()
  readonly following: Following
  hits = 0

  constructor(connection: Connection, maxEntries: number) {
    this.#near = new Near(maxEntries)
    this.following = new Following(connection, this.#near, this.#clock)
  }

  get(question: Asked): Answer | undefined {
    this.following.start()
    const answer = this.#near.get(keyOf(question), this.#clock.now(), Date.now())
    if (answer !== undefined) this.hits += 1
    return answer
  }

  now(): number | undefined {
    const now = this.#clock.now()
    return this.#near.isKeeping(now) ? now : undefined
  }

  put(key: string, answer: Answer, dependsOn: DependsOn | undefined, sentAt: number): void {
    this.#near.put(key, answer, dependsOn, sentAt)
  }

  drop(key: string): void {
    this.#near.drop(key)
  }

  /** Drops every answer, because this process makes the server read facts again. */
  invalidated(): void {
    this.#near.invalidated(this.#clock.now())
  }
}

/** The most answers that an option lets be kept; undefined for none. Throws a TypeError if it is no such option. */
function maxEntriesOf(near: unknown): number | undefined {
  if (near === undefined || near === false) return undefined
  const { maxEntries, ...others } = typeof near === 'object' && near !== null ? (near as Record<string, unknown>) : {}
  if (Number.isSafeInteger(maxEntries) && (maxEntries as number) > 0 && Object.keys(others).length === 0) return maxEntries as number
  throw new TypeError('near must be false or { maxEntries }, an integer above zero')
}

function resultOf(answer: PromiseSettledResult<Answer> | undefined): CheckResult {
  if (answer?.status === 'fulfilled') return answer.value
  const reason: unknown = answer?.reason
  if (reason instanceof PermcachedError) return { error: reason }
  throw reason
}
