// A web server whose answers are computed by threads of their own.
const http = require('http');
const { Worker } = require('worker_threads');

const sum = (n) => new Promise((resolve, reject) => {
  const w = new Worker('const { parentPort, workerData } = require("worker_threads"); let s = 0; for (let i = 1; i <= workerData; i++) s += i; parentPort.postMessage(s)',
    { eval: true, workerData: n });
  w.once('message', resolve);
  w.once('error', reject);
});

http.createServer(async (request, response) => {
  const sums = await Promise.all([1000, 2000, 3000, 4000].map(sum));
  response.end(`node ${process.version.split('.')[0]} uid ${process.getuid()} sums ${sums.join(' ')}\n`);
}).listen(80, '0.0.0.0');
process.on('SIGTERM', () => process.exit(0));
