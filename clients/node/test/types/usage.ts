// The types of the package, as an application in TypeScript uses them. Compiled, and not run.
import express from 'express'
import Fastify from 'fastify'
import mongoose, { Schema, type Model } from 'mongoose'
import {
  anonymous,
  createPermissionCache,
  momentOf,
  Overloaded,
  Permcached,
  subject,
  type Answer,
  type Permissions,
  type Plan,
} from 'permcached'
import { assertGuarded, createGuard, differencesTo, unguarded } from 'permcached/express'
import { createGuard as createFastifyGuard } from 'permcached/fastify'
import { type PermissionQueries } from 'permcached/mongoose'
import { PermissionGuard, RequirePermission, Unguarded } from 'permcached/nest'
import { fakePermissions, startPermcached } from 'permcached/testing'

export async function client(
  permissions: Permcached,
  session: mongoose.mongo.ClientSession,
  id: mongoose.Types.ObjectId,
): Promise<Answer | undefined> {
  const allowed: boolean = await permissions.can(id, 'read', 'file', id, { atLeastAsFresh: session, signal: AbortSignal.timeout(5) })
  await permissions.can(anonymous, 'read', 'file', 12n, { atLeastAsFresh: momentOf(session) })
  await permissions.can(subject('link', 'token'), 'read', 'file', new mongoose.mongo.BSON.UUID(), { atLeastAsFresh: session.operationTime })
  // @ts-expect-error a number is no id
  await permissions.can(1, 'read', 'file', id)
  // @ts-expect-error there is no such option
  await permissions.can(id, 'read', 'file', id, { at_least_as_fresh: 'token' })
  const [result] = await permissions.checkAll([{ subject: id, permission: 'read', resource: { type: 'file', id } }])
  if (result === undefined || result.error !== undefined) {
    if (result?.error instanceof Overloaded) return void result.error.retryAfterMs
    return undefined
  }
  const files: { _id: mongoose.Types.ObjectId; name: string }[] = await permissions.filterAllowed(id, 'read', 'file', [
    { _id: id, name: 'a' },
  ])
  const plan: Plan = await permissions.plan(id, 'read', 'file')
  for await (const { changes } of permissions.watch()) {
    for (const change of changes) if (change.type === 'document') console.log(change.collection, change.id, plan.filter, files, allowed)
  }
  return result
}

export function guards(permissions: Permissions): void {
  const app = express()
  const requirePermission = createGuard(permissions, { subject: (request) => request.get('user') })
  app.get(
    '/files/:id',
    requirePermission('read', 'file', (request) => request.params['id'], { hide: true, fallback: 'deny' }),
    (request, response) => {
      response.json(request.permission?.grantedBy)
    },
  )
  app.get('/', unguarded('the home page'), (_request, response) => void response.end())
  assertGuarded(app, { except: ['GET /'] })
  const sink = differencesTo('differences.jsonl')
  requirePermission('read', 'file', (request) => request.params['id'], { shadow: { mode: 'observe', old: async () => true, sink } })
  // @ts-expect-error a fallback never allows by itself
  requirePermission('read', 'file', (request) => request.params['id'], { fallback: 'allow' })

  const fastify = Fastify()
  const preHandler = createFastifyGuard(permissions, { subject: (request) => request.headers['user'] as string })
  fastify.get<{ Params: { id: string } }>(
    '/files/:id',
    { preHandler: preHandler('read', 'file', ({ params }) => (params as { id: string }).id) },
    async (request) => request.permission,
  )

  class Files {
    @RequirePermission('read', 'file', (request: express.Request) => request.params['id'])
    one(): void {}

    @Unguarded('the home page')
    home(): void {}
  }
  void [new PermissionGuard(permissions, { subject: (request) => request.user }), Files]
}

interface Note {
  title: string
}

export async function queries(permissions: Permissions, user: mongoose.Types.ObjectId): Promise<string | undefined> {
  const schema = new Schema<Note, Model<Note, PermissionQueries>, object, PermissionQueries>({ title: String })
  schema.plugin(permissions.mongoose({ type: 'note', strict: true }))
  const Note = mongoose.model('Note', schema) as Model<Note, PermissionQueries>
  const notes = await Note.find({ title: 'a' }).readableBy(user).sort('-title').limit(20)
  const count: number = await Note.countDocuments().permittedFor(user, 'write', { maxIds: 10 })
  await Note.aggregate([{ $match: { count } }]).readableBy(user)
  await Note.aggregate([]).unscoped('a report')
  return notes[0]?.title
}

export async function tests(): Promise<void> {
  await using server = await startPermcached({ schema: 'schema.toml', documents: { files: [{ _id: 'a' }] } })
  const fake: Permissions = fakePermissions({ bob: { 'file:1': ['read'], 'file:2': { read: 'NOT_FOUND', write: true } } })
  // @ts-expect-error no such reason
  fakePermissions({ bob: { 'file:2': { read: 'NOT_THERE' } } })
  const { checkPermission } = createPermissionCache(fake, { onError: console.error })
  const allowed: boolean = await checkPermission('bob', '1', 'file')
  await server.permissions.can('bob', 'read', 'file', String(allowed))
}
