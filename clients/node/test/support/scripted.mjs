// A server with handlers of a test: it answers, fails or is silent, call by call.
import { createRequire } from 'node:module'
import grpc from '@grpc/grpc-js'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'

const require = createRequire(import.meta.url)
const gen = (name) => require(`../../dist/gen/${name}_pb.js`)
export const { PermissionService } = gen('permcached/v1/permission_service')
export const { InvalidationService } = gen('permcached/v1/invalidation_service')
export const { WatchService } = gen('permcached/v1/watch_service')
export const { StatusSchema } = gen('google/rpc/status')
export const { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } = gen('google/rpc/error_details')

/** A detail of a status, as it is sent. */
export function detail(schema, value) {
  return { typeUrl: `type.googleapis.com/${schema.typeName}`, value: toBinary(schema, create(schema, value)) }
}

export const retryInfo = (ms) =>
  detail(RetryInfoSchema, { retryDelay: { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 } })

/** An error with details. */
export function failure(code, message, ...details) {
  const metadata = new grpc.Metadata()
  const status = create(StatusSchema, { code, message, details })
  metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)))
  return { code, details: message, metadata }
}

const allowAll = {
  check: () => ({ answer: { allowed: true, tier: 1, asOf: 'token' } }),
  batchCheck: ({ questions }) => ({ results: questions.map(() => ({ outcome: { case: 'answer', value: { allowed: true, tier: 1 } } })) }),
}

/**
 * Starts a server. `handlers` has a function for each method, which returns the response, or a promise of it, or throws a
 * `failure`. The server records the calls.
 */
export async function scripted(handlers = {}, { port = 0, host = '127.0.0.1' } = {}) {
  const server = new grpc.Server()
  const calls = []
  const implement = (service) => {
    const definition = {}
    const implementation = {}
    for (const method of Object.values(service.method)) {
      definition[method.localName] = {
        path: `/${service.typeName}/${method.name}`,
        requestStream: false,
        responseStream: method.methodKind === 'server_streaming',
        requestSerialize: (bytes) => bytes,
        requestDeserialize: (bytes) => fromBinary(method.input, bytes),
        responseSerialize: (message) => Buffer.from(toBinary(method.output, create(method.output, message))),
        responseDeserialize: (bytes) => bytes,
      }
      const handler = () => handlers[method.localName] ?? allowAll[method.localName]
      implementation[method.localName] =
        method.methodKind === 'server_streaming'
          ? (call) => handlers[method.localName](call.request, call)
          : async (call, done) => {
              const record = {
                method: method.localName,
                request: call.request,
                metadata: call.metadata,
                deadline: call.getDeadline(),
                at: Date.now(),
                call,
              }
              calls.push(record)
              try {
                done(null, await handler()(call.request, record))
              } catch (error) {
                done(error)
              }
            }
    }
    server.addService(definition, implementation)
  }
  implement(PermissionService)
  implement(WatchService)
  implement(InvalidationService)
  const bound = await new Promise((resolve, reject) =>
    server.bindAsync(`${host}:${port}`, grpc.ServerCredentials.createInsecure(), (error, number) =>
      error ? reject(error) : resolve(number),
    ),
  )
  return { target: `${host}:${bound}`, port: bound, calls, handlers, stop: () => server.forceShutdown() }
}
