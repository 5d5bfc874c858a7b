/**
 * The client.
 *
 * Keeps no answers.
 */

import { status as Code } from '@grpc/grpc-js'
import { create, type DescMessage, type DescMethodUnary, type MessageShape } from '@bufbuild/protobuf'
import { answerOf, type Answer } from './answer.js'
import { Coalescer, type Wait } from './coalesce.js'
import { CallFailed, Connection, type Limits, type TlsOptions } from './connection.js'
import { consistencyOf, deadlineMsOf, type CallOptions, type CheckOptions } from './consistency.js'
import { InvalidQuestion, NoAnswer, PermcachedError } from './errors.js'
import { explanationOf, type Explanation } from './explanation.js'
import { errorOf } from './failure.js'
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
import { permissionsPlugin, type PluginOptions } from './mongoose/plugin.js'
import type { CheckResult, Invalidated, Outdated, Permissions } from './permissions.js'
import { asked, askedQuestion, askedSubject, flaws, questionText, type Asked, type Question, type Subject } from './question.js'
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
  /** Permits sending the token in plaintext to a public address. */
  insecure?: boolean | undefined
}

/** How often things happened since the client was made. */
export interface Counts {
  /** Questions that were asked. */
  readonly questions: number
  /** Calls that were made for them. */
  readonly calls: number
  /** How often a call was tried again. */
  readonly retries: number
}

const DEADLINE_MS = 250

/** How long `ready` waits. */
const READY_MS = 10_000

const OPTIONS = new Set(['target', 'token', 'deadlineMs', 'defaultSubject', 'coalesce', 'tls', 'insecure'])

/** A client of permcached. One for a process is enough. */
export class Permcached implements Permissions {
  readonly #connection: Connection
  readonly #coalescer: Coalescer
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
    this.#connection = new Connection(options)
    this.#coalescer = new Coalescer(this.#connection, defaultSubject, coalesce)
  }

  /** How often things happened since the client was made. */
  get counts(): Counts {
    return { ...this.#coalescer.counts, retries: this.#connection.retries }
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
    const { token, published } = await this.#call(InvalidationService.method.invalidate, request, options)
    return { token, published }
  }

  watch(options: WatchOptions = {}): AsyncIterableIterator<Changes> {
    return watch(this.#connection, options)
  }

  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  mongoose(options: PluginOptions): (schema: any) => void {
    return permissionsPlugin(this, options)
  }

  /**
   * Connects, and makes a first call, which takes longer than later ones. Rejects if the server does not accept the token.
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
  }

  /** Waits until every check has its answer, and ends the connection. Later calls are rejected. */
  close(): Promise<void> {
    this.#closing ??= this.#coalescer.settled().then(() => this.#connection.close())
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
    return error === undefined ? this.#coalescer.ask(question, consistency, wait) : Promise.reject(error)
  }

  async #askAll(questions: readonly Asked[], options: CheckOptions | undefined): Promise<CheckResult[]> {
    this.#open()
    const consistency = consistencyOf(options)
    const wait = this.#limits(options)
    const errors = questions.map((question) => this.#invalid(question))
    const valid = questions.filter((_, index) => errors[index] === undefined)
    const answers = await Promise.allSettled(this.#coalescer.askTogether(valid, consistency, wait))
    wait.signal?.throwIfAborted()
    let next = 0
    return errors.map((error) => (error === undefined ? resultOf(answers[next++]) : { error }))
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

function resultOf(answer: PromiseSettledResult<Answer> | undefined): CheckResult {
  if (answer?.status === 'fulfilled') return answer.value
  const reason: unknown = answer?.reason
  if (reason instanceof PermcachedError) return { error: reason }
  throw reason
}
