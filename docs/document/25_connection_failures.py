# Test connection independently
result = await test_memory_provider_connection()
if not result['healthy']:
    print(f"Connection issue: {result['error']}")
