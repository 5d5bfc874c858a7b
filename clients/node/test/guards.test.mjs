// The guards of Express 4 and 5, Fastify and Nest: the same requests with the same responses.
import 'reflect-metadata'
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { Controller, Get, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import express5 from 'express'
import express4 from 'express4'
import fastify from 'fastify'
import { anonymous, DeadlineExceeded, InvalidQuestion, Overloaded, subject, Unauthenticated, Unavailable } from 'permcached'
import { assertGuarded, createGuard as expressGuard, unguarded } from 'permcached/express'
import { createGuard as fastifyGuard } from 'permcached/fastify'
import { PermissionGuard, RequirePermission, Unguarded } from 'permcached/nest'
import { fakePermissions } from 'permcached/testing'
import { until } from './support/databases.mjs'

const closing = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

const down = new Unavailable('no database', { code: 'UNAVAILABLE' })
const table = {
  bob: {
    'file:own': ['read'],
    'file:gone': { read: 'NOT_FOUND' },
    'file:trashed': { read: 'EXCLUDED' },
    'file:down': { read: down },
    'file:late': { read: new DeadlineExceeded('late', { code: 'DEADLINE_EXCEEDED' }) },
    'file:busy': { read: new Overloaded('busy', { code: 'RESOURCE_EXHAUSTED', retryAfterMs: 2_500 }) },
    'file:refused': { read: new Unauthenticated('unknown token', { code: 'UNAUTHENTICATED' }) },
    'file:wrong': { read: new InvalidQuestion('no id', { code: 'INVALID_ARGUMENT', fields: [] }) },
    'file:broken': { read: new Error('a bug') },
  },
  'link:abc': { 'file:shared': ['read'], 'file:down': ['read'] },
  anonymous: { 'file:public': ['read'] },
}

/** Who asks: the header `user`; and the link of the header `link`. */
const who = {
  subject: (request) => (request.headers.user === 'nobody' ? anonymous : request.headers.user),
  anyOf: (request) => (request.headers.link ? [subject('link', request.headers.link)] : []),
  onNoAnswer: () => {},
}
const ofFile = (request) => (request.params.id === 'no-id' ? { $ne: 1 } : request.params.id)
const answers = (request) => ({ allowed: request.permission?.allowed ?? null })

/** Each framework: starts an application with a guard for `/files/:id`, and returns its address and the counts. */
const frameworks = {
  async 'Express 5'(permissions, options) {
    return expressApp(express5, permissions, options)
  },
  async 'Express 4'(permissions, options) {
    return expressApp(express4, permissions, options)
  },
  async Fastify(permissions, options) {
    const requirePermission = fastifyGuard(permissions, who)
    const app = fastify()
    app.setErrorHandler((error, _request, reply) => reply.code(500).send({ error: error.message }))
    app.get('/files/:id', { preHandler: requirePermission('read', 'file', ofFile, options) }, async (request) => answers(request))
    const url = await app.listen({ port: 0, host: '127.0.0.1' })
    closing.push(() => app.close())
    return { url, counts: requirePermission.counts }
  },
  async Nest(permissions, options) {
    class Files {
      one(request) {
        return answers(request)
      }
    }
    const guard = new PermissionGuard(permissions, who)
    const describeMethod = (decorate) => decorate(Files.prototype, 'one', Object.getOwnPropertyDescriptor(Files.prototype, 'one'))
    const { Req } = await import('@nestjs/common')
    Req()(Files.prototype, 'one', 0)
    describeMethod(Get('files/:id'))
    describeMethod(RequirePermission('read', 'file', ofFile, options))
    Controller()(Files)
    class App {}
    Module({ controllers: [Files] })(App)
    const app = await NestFactory.create(App, { logger: false })
    app.useGlobalGuards(guard)
    await app.listen(0, '127.0.0.1')
    closing.push(() => app.close())
    return { url: `http://127.0.0.1:${app.getHttpServer().address().port}`, counts: guard.counts }
  },
}

async function expressApp(express, permissions, options) {
  const requirePermission = expressGuard(permissions, who)
  const app = express()
  app.get('/files/:id', requirePermission('read', 'file', ofFile, options), (request, response) => response.json(answers(request)))
  app.use((error, _request, response, _next) => response.status(500).json({ error: error.message }))
  const server = await new Promise((done) => {
    const started = app.listen(0, '127.0.0.1', () => done(started))
  })
  closing.push(() => new Promise((done) => server.close(done) && server.closeAllConnections()))
  return { url: `http://127.0.0.1:${server.address().port}`, counts: requirePermission.counts }
}

async function get(url, id, headers = {}) {
  const response = await fetch(`${url}/files/${id}`, { headers })
  const body = await response.json()
  return { status: response.status, error: body.error, allowed: body.allowed, retryAfter: response.headers.get('retry-after') }
}

for (const [name, start] of Object.entries(frameworks)) {
  describe(name, () => {
    test('answers 200, 400, 401, 403, 404 and 503', async () => {
      const { url, counts } = await start(fakePermissions(table))
      for (const [id, headers, status, error] of [
        ['own', { user: 'bob' }, 200],
        ['other', { user: 'bob' }, 403, 'forbidden'],
        ['own', {}, 401, 'unauthenticated'],
        ['public', { user: 'nobody' }, 200],
        ['own', { user: 'nobody' }, 403, 'forbidden'],
        ['shared', { link: 'abc' }, 200],
        ['shared', { user: 'bob', link: 'abc' }, 200],
        ['shared', { user: 'bob', link: 'other' }, 403, 'forbidden'],
        ['gone', { user: 'bob' }, 404, 'not_found'],
        ['trashed', { user: 'bob' }, 404, 'not_found'],
        ['no-id', { user: 'bob' }, 400, 'invalid_request'],
        ['wrong', { user: 'bob' }, 400, 'invalid_request'],
        ['down', { user: 'bob' }, 503, 'unavailable'],
        ['late', { user: 'bob' }, 503, 'unavailable'],
        ['refused', { user: 'bob' }, 503, 'unavailable'],
        // Another subject allows, although there is no answer for the first.
        ['down', { user: 'bob', link: 'abc' }, 200],
        // Another subject is denied: the missing answer may have been the one that allows.
        ['down', { user: 'bob', link: 'other' }, 503, 'unavailable'],
      ]) {
        const got = await get(url, id, headers)
        assert.deepEqual([got.status, got.error], [status, error], `${id} ${JSON.stringify(headers)}`)
        if (status === 200) assert.equal(got.allowed, true)
        assert.equal(got.retryAfter, status === 503 ? '1' : null)
      }
      assert.equal((await get(url, 'busy', { user: 'bob' })).retryAfter, '3')
      assert.equal((await get(url, 'broken', { user: 'bob' })).status, 500)
      assert.deepEqual([counts.allowed, counts.noAnswer, counts.fallbacks], [5, 5, 0])
    })

    test('hide answers 404 to each denial, and to nothing else', async () => {
      const { url } = await start(fakePermissions(table), { hide: true })
      for (const [id, status] of [
        ['own', 200],
        ['other', 404],
        ['gone', 404],
        ['down', 503],
        ['wrong', 400],
      ]) {
        assert.equal((await get(url, id, { user: 'bob' })).status, status, id)
      }
    })

    test("fallback 'deny' denies where there is no answer, and is counted", async () => {
      const { url, counts } = await start(fakePermissions(table), { fallback: 'deny' })
      for (const [id, status] of [
        ['own', 200],
        ['down', 403],
        ['late', 403],
        ['refused', 503],
        ['wrong', 400],
      ]) {
        assert.equal((await get(url, id, { user: 'bob' })).status, status, id)
      }
      assert.equal(counts.fallbacks, 2)
    })

    test('a fallback is asked only where there is no answer, and only true allows', async () => {
      const asked = []
      let result = true
      const fallback = (request, error) => {
        asked.push([request.params.id, error.code])
        return result
      }
      const { url, counts } = await start(fakePermissions(table), { fallback })
      for (const id of ['own', 'other', 'gone', 'wrong', 'refused']) await get(url, id, { user: 'bob' })
      assert.deepEqual(asked, [])
      assert.deepEqual(await get(url, 'down', { user: 'bob' }), { status: 200, error: undefined, allowed: null, retryAfter: null })
      assert.deepEqual(asked, [['down', 'UNAVAILABLE']])
      for (result of [false, undefined, 'true', 1, {}]) assert.equal((await get(url, 'down', { user: 'bob' })).status, 403)
      assert.equal(counts.fallbacks, 6)
    })

    test('a shadow observes: the old check decides, and differences are collected after the response', async () => {
      const differences = []
      let old = true
      const shadow = { mode: 'observe', old: () => old, sink: (each) => void differences.push(each) }
      const { url, counts } = await start(fakePermissions(table), { shadow })
      for (const [id, isOld, status] of [
        ['own', true, 200],
        ['other', true, 200],
        ['own', false, 403],
        ['gone', false, 403],
        ['down', true, 200],
        ['broken', false, 403],
        ['no-id', true, 200],
      ]) {
        old = isOld
        assert.equal((await get(url, id, { user: 'bob' })).status, status, id)
      }
      await until('comparisons', () => counts.compared + counts.incomparable === 7)
      assert.deepEqual([counts.compared, counts.different, counts.incomparable], [4, 2, 3])
      assert.deepEqual(
        differences.map(({ at, ...rest }) => (assert.ok(!Number.isNaN(Date.parse(at))), rest)),
        [
          { type: 'file', permission: 'read', old: true, ours: false, reason: 'NO_GRANT' },
          { type: 'file', permission: 'read', old: false, ours: true },
        ],
      )
    })

    test('a shadow enforces: permcached decides, and the old check cannot affect it', async () => {
      const differences = []
      const old = (request) => {
        if (request.params.id === 'trashed') throw new Error('the old check fails')
        return request.params.id === 'other'
      }
      const shadow = { mode: 'enforce', ids: true, old, sink: (each) => void differences.push(each) }
      const { url, counts } = await start(fakePermissions(table), { shadow })
      for (const [id, headers, status] of [
        ['own', { user: 'bob' }, 200],
        ['other', { user: 'bob', link: 'x' }, 403],
        ['trashed', { user: 'bob' }, 404],
        ['gone', { user: 'bob' }, 404],
        ['down', { user: 'bob' }, 503],
      ]) {
        assert.equal((await get(url, id, headers)).status, status, id)
      }
      await until('comparisons', () => counts.compared + counts.incomparable === 4)
      assert.deepEqual(
        differences.map(({ old, ours, subjects, resource }) => ({ old, ours, subjects, resource })),
        [
          { old: false, ours: true, subjects: [':bob'], resource: 'file:own' },
          { old: true, ours: false, subjects: [':bob', 'link:(hidden)'], resource: 'file:other' },
        ],
      )
    })
  })
}

test('a shadow compares only its sample', async () => {
  const { url, counts } = await frameworks['Express 5'](fakePermissions(table), {
    shadow: { mode: 'observe', sample: 0, old: () => true, sink: () => {} },
  })
  for (let count = 0; count < 20; count += 1) await get(url, 'other', { user: 'bob' })
  assert.equal(counts.compared, 0)
})

test('a guard without a subject, or with options that it cannot use, is an error when the route is made', () => {
  const permissions = fakePermissions()
  const id = () => 'x'
  assert.throws(() => expressGuard(permissions)('read', 'file', id), /subject/)
  for (const [args, options] of [
    [['read', 'file'], {}],
    [['read', undefined, id], {}],
    [['read', 'file', id], { fallback: 'allow' }],
    [['read', 'file', id], { fallback: true }],
    [['read', 'file', id], { shadow: { mode: 'both', old: id, sink: id } }],
    [['read', 'file', id], { shadow: { mode: 'observe', old: id, sink: id, sample: 2 } }],
    [['read', 'file', id], { shadow: { mode: 'observe', sink: id } }],
  ]) {
    assert.throws(() => expressGuard(permissions, who)(args[0], args[1], args[2], options), TypeError)
  }
})

for (const [name, express] of [
  ['5', express5],
  ['4', express4],
]) {
  test(`assertGuarded lists the routes of Express ${name} without a guard`, () => {
    const requirePermission = expressGuard(fakePermissions(), who)
    const guard = () => requirePermission('read', 'file', ofFile)
    const handler = (_request, response) => response.end()
    const app = express()
    app.use(express.json())
    app.get('/open', unguarded('the home page'), handler)
    app.get('/files/:id', guard(), handler)
    assertGuarded(app)
    app.get('/forgotten', handler)
    app.route('/two').get(guard(), handler).post(handler)
    app.get('/late', handler, guard())
    app.route('/all').all(handler, guard()).get(handler)
    const guarded = express.Router()
    guarded.get('/before', handler)
    guarded.use(guard())
    guarded.get('/after', handler)
    const nested = express.Router()
    nested.delete('/nested', handler)
    guarded.use('/inner', nested)
    app.use('/router', guarded)
    const open = express.Router()
    open.use(unguarded('static pages'))
    open.get('/pages', handler)
    app.use('/pages', open)
    const prefix = name === '4' ? '/router' : ''
    assert.throws(
      () => assertGuarded(app),
      (error) => {
        const routes = error.message
          .split('\n')
          .filter((line) => line.startsWith('  '))
          .map((line) => line.trim())
        assert.deepEqual(routes.sort(), ['GET /forgotten', 'GET /late', `GET ${prefix}/before`, 'POST /two'].sort())
        return true
      },
    )
    assertGuarded(app, { except: ['GET /forgotten', 'GET /late', 'POST /two', /before$/] })
    assert.throws(() => assertGuarded({}), TypeError)
    assert.throws(() => unguarded(''), TypeError)
  })
}

test('the guard of Nest refuses handlers that have no decorator', async () => {
  class Files {}
  const handlers = { open() {}, forgotten() {}, inherited() {} }
  Unguarded('the home page')(Files.prototype, 'open', { value: handlers.open })
  const context = (handler, type = 'http') => ({
    getHandler: () => handler,
    getClass: () => Files,
    getType: () => type,
    switchToHttp: () => ({}),
  })
  const guard = new PermissionGuard(fakePermissions(), who)
  assert.equal(await guard.canActivate(context(handlers.open)), true)
  await assert.rejects(guard.canActivate(context(handlers.forgotten)), /Files\.forgotten/)
  RequirePermission('read', 'file', ofFile)(Files)
  await assert.rejects(guard.canActivate(context(handlers.inherited, 'ws')), /HTTP/)
  assert.throws(() => Unguarded(''), TypeError)
})
