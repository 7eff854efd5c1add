'use strict'

// dockerode against the engine at $DOCKER_HOST: what a program in Node.js does with containers, images, networks and volumes. Each test is
// about one kind of conversation: plain JSON, streams that take the connection over, streams that last, and archives in both directions.

const assert = require('node:assert/strict')
const { test, after } = require('node:test')
const { once } = require('node:events')
const { PassThrough, Readable } = require('node:stream')
const zlib = require('node:zlib')
const tar = require('tar-stream')
const Docker = require('dockerode')

const docker = new Docker() // reads DOCKER_HOST
const image = 'busybox:1'
const label = { 'wherry.test': 'dockerode' }

// text is what a stream yields until it ends.
async function text (stream) {
  let s = ''
  for await (const chunk of stream) s += chunk
  return s
}

// demuxed splits an attached stream into what came from stdout and from stderr.
function demuxed (stream) {
  const out = new PassThrough(); const err = new PassThrough()
  docker.modem.demuxStream(stream, out, err)
  stream.on('end', () => { out.end(); err.end() })
  stream.on('close', () => { out.end(); err.end() })
  return Promise.all([text(out), text(err)])
}

// finished follows a stream of progress to its end; an error comes as its last object.
async function finished (stream, onProgress) {
  const all = await new Promise((resolve, reject) => docker.modem.followProgress(stream, (e, all) => e ? reject(e) : resolve(all), onProgress))
  const failed = all.find(x => x.error)
  if (failed) throw new Error(failed.error)
  return all
}

// archive is a tar of {name: content}.
function archive (files) {
  const pack = tar.pack()
  for (const [name, content] of Object.entries(files)) pack.entry({ name }, content)
  pack.finalize()
  return pack
}

// unpacked is a tar's files as {name: content}.
async function unpacked (stream) {
  const files = {}
  const extract = tar.extract()
  extract.on('entry', async (header, body, next) => { files[header.name] = await text(body); next() })
  stream.pipe(extract)
  await once(extract, 'finish')
  return files
}

async function create (options) {
  return docker.createContainer({ Image: image, Labels: label, ...options })
}

// run is docker.run with the output taken apart, and the container removed.
async function run (name, command, options) {
  const out = new PassThrough(); const err = new PassThrough()
  const printed = Promise.all([text(out), text(err)])
  const [end, c] = await docker.run(name, command, [out, err], { Tty: false, Labels: label, ...options })
  await c.remove()
  const [stdout, stderr] = await printed
  return { status: end.StatusCode, out: stdout, err: stderr }
}

async function sleeper (options) {
  const c = await create({ Cmd: ['sleep', '300'], ...options })
  await c.start()
  return c
}

after(async () => {
  for (const c of await docker.listContainers({ all: true, filters: { label: ['wherry.test=dockerode'] } })) {
    await docker.getContainer(c.Id).remove({ force: true, v: true })
  }
})

test('the engine tells of itself', async () => {
  assert.equal(String(await docker.ping()), 'OK')
  const version = await docker.version()
  assert.ok(version.ApiVersion && version.Components.length > 0)
  const info = await docker.info()
  assert.equal(info.OSType, 'linux')
  assert.ok(info.NCPU >= 1 && info.MemTotal > 0)
  const df = await docker.df()
  assert.ok(df.Images.some(i => i.RepoTags.includes(image)))
})

test('containers are listed, created, started, inspected, renamed, stopped and removed', async () => {
  const c = await create({ name: 'dockerode-life', Cmd: ['sleep', '300'], Env: ['A=b'], ExposedPorts: { '80/tcp': {} } })
  assert.ok((await c.inspect()).Config.Env.includes('A=b'))
  const listed = async (all) => (await docker.listContainers({ all, filters: { label: ['wherry.test=dockerode'], name: ['dockerode-life'] } })).map(x => x.State)
  assert.deepEqual(await listed(true), ['created'])
  assert.deepEqual(await listed(false), [])
  await c.start()
  assert.deepEqual(await listed(false), ['running'])
  await c.rename({ name: 'dockerode-life-2' })
  assert.equal((await docker.getContainer('dockerode-life-2').inspect()).Id, c.id)
  await c.pause()
  assert.equal((await c.inspect()).State.Status, 'paused')
  await c.unpause()
  await c.update({ Memory: 64 << 20, MemorySwap: 64 << 20 })
  assert.equal((await c.inspect()).HostConfig.Memory, 64 << 20)
  const top = await c.top({ ps_args: '-o pid,args' })
  assert.ok(top.Processes.some(p => p.join(' ').includes('sleep 300')))
  await c.restart({ t: 0 })
  const waited = c.wait()
  await c.kill({ signal: 'SIGKILL' })
  assert.equal((await waited).StatusCode, 137)
  await c.remove()
  await assert.rejects(c.inspect(), e => e.statusCode === 404 && /No such container/.test(e.json.message))
})

test('errors carry a status and a message', async () => {
  await assert.rejects(create({ Image: 'no-such-image:1' }), e => e.statusCode === 404 && /No such image/.test(e.json.message))
  await assert.rejects(create({ name: 'bad name!' }), e => e.statusCode === 400 && /Invalid container name/.test(e.json.message))
  const a = await create({ name: 'dockerode-twice' })
  await assert.rejects(create({ name: 'dockerode-twice' }), e => e.statusCode === 409 && /already in use/.test(e.json.message))
  await a.remove()
  const b = await create({ Cmd: ['/no/such/program'] })
  await assert.rejects(b.start(), e => [400, 404].includes(e.statusCode) && /no such file/.test(e.json.message))
})

test('attach takes the connection over, in both directions', async () => {
  const c = await create({ Cmd: ['sh', '-c', 'read x; echo "got $x"; echo "no $x" >&2; exit 4'], OpenStdin: true, StdinOnce: true, AttachStdin: true })
  const stream = await c.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true })
  const output = demuxed(stream)
  await c.start()
  stream.write('boat\n')
  stream.end()
  assert.equal((await c.wait()).StatusCode, 4)
  assert.deepEqual(await output, ['got boat\n', 'no boat\n'])
})

test('attach to a terminal is raw, and can be resized', async () => {
  const c = await create({ Cmd: ['sh'], Tty: true, OpenStdin: true })
  const stream = await c.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true })
  const output = text(stream)
  await c.start()
  await c.resize({ h: 33, w: 99 })
  stream.write('stty size; exit\n')
  await c.wait()
  assert.match(await output, /33 99/)
})

test('run prints and gives the exit status', async () => {
  assert.deepEqual(await run(image, ['sh', '-c', 'echo out; echo err >&2; exit 7']), { status: 7, out: 'out\n', err: 'err\n' })
})

test('exec takes input, tells its exit status, and has an environment of its own', async () => {
  const c = await sleeper()
  const e = await c.exec({ Cmd: ['sh', '-c', 'cat; echo "$A $(id -u) $(pwd)" >&2; exit 5'], Env: ['A=b'], User: '7', WorkingDir: '/tmp', AttachStdin: true, AttachStdout: true, AttachStderr: true })
  const stream = await e.start({ hijack: true, stdin: true })
  const output = demuxed(stream)
  stream.write('x'.repeat(1 << 20))
  stream.end()
  const [out, err] = await output
  assert.equal(out.length, 1 << 20)
  assert.equal(err, 'b 7 /tmp\n')
  const state = await e.inspect()
  assert.equal(state.ExitCode, 5)
  assert.equal(state.Running, false)
  const plain = await c.exec({ Cmd: ['echo', 'plain'], AttachStdout: true })
  assert.deepEqual(await demuxed(await plain.start({})), ['plain\n', '']) // no hijack: the answer's body
  const missing = await c.exec({ Cmd: ['no-such-program'], AttachStdout: true })
  assert.match((await demuxed(await missing.start({}))).join(''), /no-such-program/)
  assert.equal((await missing.inspect()).ExitCode, 127)
  await c.remove({ force: true })
})

test('logs are followed, tailed and cut by time', async () => {
  const c = await create({ Cmd: ['sh', '-c', 'for i in 1 2 3; do echo line $i; sleep 0.1; done'] })
  await c.start()
  const followed = demuxed(await c.logs({ follow: true, stdout: true, stderr: true }))
  await c.wait()
  assert.deepEqual(await followed, ['line 1\nline 2\nline 3\n', ''])
  const tail = await c.logs({ stdout: true, tail: 1, timestamps: true })
  assert.match(tail.subarray(8).toString(), /^\d{4}-\d\d-\d\dT[\d:.]+Z line 3\n$/)
  const none = await c.logs({ stdout: true, since: Math.floor(Date.now() / 1000) + 60 })
  assert.equal(none.length, 0)
})

test('stats stream one object a second, and one at once', async () => {
  const c = await sleeper({ HostConfig: { Memory: 64 << 20 } })
  const stream = await c.stats({ stream: true })
  const seen = []
  let rest = ''
  for await (const chunk of stream) {
    const lines = (rest + chunk).split('\n')
    rest = lines.pop()
    seen.push(...lines.filter(Boolean).map(JSON.parse))
    if (seen.length >= 2) break
  }
  stream.destroy()
  assert.equal(seen[1].memory_stats.limit, 64 << 20)
  assert.ok(seen[1].cpu_stats.system_cpu_usage > seen[1].precpu_stats.system_cpu_usage)
  assert.ok('eth0' in seen[1].networks)
  const once = await c.stats({ stream: false })
  assert.equal(once.name, '/' + (await c.inspect()).Name.slice(1))
  await c.remove({ force: true })
})

test('events come as they happen, and those of the past on demand', async () => {
  const stream = await docker.getEvents({ filters: { type: ['container'], label: ['wherry.test=dockerode'], event: ['create', 'start', 'die', 'destroy'] } })
  const c = await create({ Cmd: ['true'] })
  await c.start()
  await c.wait()
  await c.remove()
  const seen = []
  for await (const chunk of stream) {
    seen.push(...String(chunk).split('\n').filter(Boolean).map(JSON.parse).filter(e => e.id === c.id))
    if (seen.some(e => e.Action === 'destroy')) break
  }
  stream.destroy()
  assert.deepEqual(seen.map(e => e.Action), ['create', 'start', 'die', 'destroy'])
  assert.equal(seen[2].Actor.Attributes.exitCode, '0')
  const past = await text(await docker.getEvents({ since: 0, until: seen[3].time + 1, filters: { container: [c.id] } }))
  assert.deepEqual(past.split('\n').filter(Boolean).map(l => JSON.parse(l).Action).filter(a => a !== 'attach'), ['create', 'start', 'die', 'destroy'])
})

test('files go in and out as archives', async () => {
  const c = await sleeper()
  await c.putArchive(archive({ 'a.txt': 'in by tar' }), { path: '/tmp' })
  await c.putArchive(archive({ 'b.txt': 'in by gzip' }).pipe(zlib.createGzip()), { path: '/tmp' })
  assert.deepEqual(await unpacked(await c.getArchive({ path: '/tmp/a.txt' })), { 'a.txt': 'in by tar' })
  assert.equal((await unpacked(await c.getArchive({ path: '/tmp' })))['tmp/b.txt'], 'in by gzip')
  const stat = await c.infoArchive({ path: '/tmp/a.txt' })
  stat.resume() // dockerode gives a stream, of nothing
  assert.equal(JSON.parse(Buffer.from(stat.headers['x-docker-container-path-stat'], 'base64')).size, 9)
  assert.ok((await c.changes()).some(x => x.Path === '/tmp/a.txt' && x.Kind === 1))
  await assert.rejects(c.getArchive({ path: '/nothing' }), e => e.statusCode === 404)
  const whole = await unpacked(await c.export())
  assert.equal(whole['tmp/a.txt'], 'in by tar')
  await c.remove({ force: true })
})

for (const version of ['1', '2']) {
  test(`images are built from a tar, by version ${version} of the builder's API`, async () => {
    const context = archive({ Dockerfile: `FROM ${image}\nARG WHO\nRUN echo "for $WHO" >/made\nCOPY file /file\nCMD ["cat","/made","/file"]\n`, file: `copied ${version}\n` })
    const seen = await finished(await docker.buildImage(context, { t: `dockerode:built-${version}`, buildargs: JSON.stringify({ WHO: 'node' }), labels: JSON.stringify(label), version }))
    const last = seen.filter(x => x.aux && /^sha256:/.test(x.aux.ID)).pop()
    assert.ok(last, JSON.stringify(seen.slice(-3)))
    const { status, out } = await run(`dockerode:built-${version}`, [])
    assert.equal(status, 0)
    assert.equal(out, `for node\ncopied ${version}\n`)
    await docker.getImage(`dockerode:built-${version}`).remove()
    await assert.rejects(finished(await docker.buildImage(archive({ Dockerfile: `FROM ${image}\nRUN exit 9\n` }), { version })), /9/)
  })
}

test('images are tagged, pushed, pulled with progress, saved, loaded and removed', async () => {
  const repo = `${process.env.REGISTRY}/dockerode/busybox`
  await docker.getImage(image).tag({ repo, tag: 'x' })
  const pushed = await finished(await docker.getImage(`${repo}:x`).push({ tag: 'x', authconfig: { username: 'u', password: 'p' } }))
  assert.ok(pushed.some(x => /^x: digest: sha256:/.test(x.status)), JSON.stringify(pushed))
  await docker.getImage(`${repo}:x`).remove()
  let progress = 0
  const pulled = await finished(await docker.pull(`${repo}:x`), () => progress++)
  assert.ok(progress > 1 && pulled.some(x => /Status: (Downloaded newer image|Image is up to date)/.test(x.status)), JSON.stringify(pulled))
  const inspected = await docker.getImage(`${repo}:x`).inspect()
  assert.ok(inspected.RepoDigests.some(d => d.startsWith(repo + '@sha256:')))
  assert.ok((await docker.getImage(`${repo}:x`).history()).length > 0)
  assert.ok((await docker.listImages({ filters: { reference: [`${repo}:x`] } })).length === 1)
  const parts = []
  for await (const chunk of await docker.getImage(`${repo}:x`).get()) parts.push(chunk)
  await docker.getImage(`${repo}:x`).remove()
  const loaded = await finished(await docker.loadImage(Readable.from(parts)))
  assert.ok(loaded.some(x => (x.stream || '').includes(`${repo}:x`)), JSON.stringify(loaded))
  await docker.getImage(`${repo}:x`).remove()
  await assert.rejects(async () => finished(await docker.pull(`${repo}:missing`)), /not found|unknown/)
})

test('a container is committed', async () => {
  const c = await create({ Cmd: ['sh', '-c', 'echo kept >/kept'] })
  await c.start()
  await c.wait()
  await c.commit({ repo: 'dockerode', tag: 'committed', changes: 'CMD ["cat", "/kept"]' })
  assert.equal((await run('dockerode:committed', [])).out, 'kept\n')
  await docker.getImage('dockerode:committed').remove()
})

test('networks have members, that know each other by name', async () => {
  const network = await docker.createNetwork({ Name: 'dockerode-net', Driver: 'bridge', Labels: label, IPAM: { Config: [{ Subnet: '10.231.7.0/24', Gateway: '10.231.7.1' }] } })
  const a = await sleeper({ name: 'dockerode-a', HostConfig: { NetworkMode: 'dockerode-net' }, NetworkingConfig: { EndpointsConfig: { 'dockerode-net': { Aliases: ['harbour'], IPAMConfig: { IPv4Address: '10.231.7.9' } } } } })
  const b = await sleeper({ name: 'dockerode-b' })
  await network.connect({ Container: b.id, EndpointConfig: { Aliases: ['quay'] } })
  const members = Object.values((await network.inspect()).Containers).map(x => x.Name).sort()
  assert.deepEqual(members, ['dockerode-a', 'dockerode-b'])
  const e = await b.exec({ Cmd: ['ping', '-c', '1', 'harbour'], AttachStdout: true })
  assert.match((await demuxed(await e.start({})))[0], /10\.231\.7\.9/)
  await network.disconnect({ Container: b.id })
  assert.ok(!('dockerode-net' in (await b.inspect()).NetworkSettings.Networks))
  await assert.rejects(network.remove(), e => e.statusCode === 403 || e.statusCode === 409)
  await a.remove({ force: true })
  await b.remove({ force: true })
  await network.remove()
  assert.equal((await docker.listNetworks({ filters: { name: ['dockerode-net'] } })).length, 0)
})

test('volumes keep what containers leave', async () => {
  await docker.createVolume({ Name: 'dockerode-vol', Labels: label })
  const HostConfig = { Mounts: [{ Type: 'volume', Source: 'dockerode-vol', Target: '/data' }] }
  const writer = await create({ Cmd: ['sh', '-c', 'echo kept >/data/x'], HostConfig })
  await writer.start()
  assert.equal((await writer.wait()).StatusCode, 0)
  assert.equal((await writer.inspect()).Mounts[0].Name, 'dockerode-vol')
  await assert.rejects(docker.getVolume('dockerode-vol').remove(), e => e.statusCode === 409)
  await writer.remove()
  assert.equal((await run(image, ['cat', '/data/x'], { HostConfig })).out, 'kept\n')
  assert.ok((await docker.listVolumes({ filters: { label: ['wherry.test=dockerode'] } })).Volumes.some(v => v.Name === 'dockerode-vol'))
  await docker.getVolume('dockerode-vol').remove()
  await assert.rejects(docker.getVolume('dockerode-vol').inspect(), e => e.statusCode === 404)
})

test('published ports are told in lists and inspections', async () => {
  const c = await sleeper({ ExposedPorts: { '8080/tcp': {} }, HostConfig: { PortBindings: { '8080/tcp': [{ HostIp: '127.0.0.1', HostPort: '0' }] } } })
  const [binding] = (await c.inspect()).NetworkSettings.Ports['8080/tcp']
  assert.ok(Number(binding.HostPort) > 1024)
  const [row] = await docker.listContainers({ filters: { id: [c.id] } })
  assert.deepEqual(row.Ports, [{ IP: '127.0.0.1', PrivatePort: 8080, PublicPort: Number(binding.HostPort), Type: 'tcp' }])
  await c.remove({ force: true })
})

test('prunes say what they removed', async () => {
  const c = await create({ Cmd: ['true'] })
  const pruned = await docker.pruneContainers({ filters: { label: ['wherry.test=dockerode'] } })
  assert.ok(pruned.ContainersDeleted.includes(c.id))
})

test('a stream that is given up does not keep the engine busy, and aborts are heeded', async () => {
  const c = await sleeper()
  const aborter = new AbortController()
  const waiting = c.wait({ abortSignal: aborter.signal })
  aborter.abort()
  await assert.rejects(waiting)
  const follow = await c.logs({ follow: true, stdout: true })
  follow.destroy()
  assert.equal((await c.inspect()).State.Running, true)
  await c.remove({ force: true })
})
