from jaf_memory_core import get_memory_provider_info, test_memory_provider_connection

# Get configuration info without creating provider
info = get_memory_provider_info()
print(f"Provider type: {info['type']}")
print(f"Persistence: {info['persistence']}")

# Test connection before creating provider
result = await test_memory_provider_connection()
if result['healthy']:
    print(f" {result['message']}")
else:
    print(f" {result['error']}")
