# Monitor response times
import time

start_time = time.time()
conversation = await provider.get_conversation("test-id")
response_time = (time.time() - start_time) * 1000

if response_time > 100:  # > 100ms
    print(f"Slow response: {response_time:.2f}ms")
